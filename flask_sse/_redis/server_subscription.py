"""The hub's subscription to one Redis: connects, subscribes, and starts again after a loss.

Only the hub's loop uses it. Nothing blocks: connections are made in a separate thread.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

from flask_sse._redis.attempt import Attempt
from flask_sse._redis.outage import Outage
from flask_sse._redis.pubsub import LOST, Arrival, PubSubConnection, Subscribed
from flask_sse._system.clock import monotonic
from flask_sse._system.poller import READ, Poller, Waker

Connect = Callable[[], PubSubConnection]
"""Makes a connection to Redis. It may block, and may raise any exception."""

_POLL_INTERVAL: Final = 0.02
_READ_LIMIT: Final = 1 << 16


class ServerSubscription:
    """The subscriptions to the wanted channels, on a connection that may be lost and replaced.

    :param poller: Watches the connection's descriptor.
    :param waker: Ends the loop's wait when there is a connection.
    """

    def __init__(self, connect: Connect, outage: Outage, poller: Poller, waker: Waker) -> None:
        self._connect = connect
        self._outage = outage
        self._poller = poller
        self._waker = waker
        self._connection: PubSubConnection | None = None
        self._attempt: Attempt[PubSubConnection] | None = None
        self._next_attempt = 0.0
        # The channels whose subscription may have to change.
        self._changed: set[bytes] = set()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    @property
    def is_connecting(self) -> bool:
        """Whether a thread is working whose result the loop must handle."""
        return self._attempt is not None

    @property
    def has_more(self) -> bool:
        """Whether :meth:`read` has left data that a poller may not see."""
        return self._connection is not None and self._connection.has_more

    def timeout(self, longest: float) -> float:
        """Return how many seconds the loop may wait for descriptors."""
        if self._connection is None:
            if self._attempt is not None:
                return longest
            return min(longest, max(0.0, self._next_attempt - monotonic()))
        if self._connection.has_more:
            return 0.0
        return min(longest, _POLL_INTERVAL) if self._connection.must_be_polled else longest

    @property
    def descriptor(self) -> int | None:
        """The descriptor of the connection; `None` if there is none."""
        connection = self._connection
        return (
            None if connection is None or connection.socket is None else connection.socket.fileno()
        )

    @property
    def is_quiet(self) -> bool:
        """Whether :meth:`read` has nothing to do until a poller sees something."""
        connection = self._connection
        return connection is not None and not self._changed and connection.is_quiet

    def note_ready(self, descriptor: int) -> None:
        """Do nothing: the only connection is read in each turn."""

    def note_change(self, channel: bytes) -> None:
        """Make the next :meth:`read` check whether a channel is wanted."""
        self._changed.add(channel)

    def is_confirmed(self, channel: bytes) -> bool:
        """Whether Redis has confirmed that it sends this channel's events."""
        return self._connection is not None and self._connection.is_confirmed(channel)

    def read(self, wanted: Collection[bytes]) -> Sequence[Arrival]:
        """Subscribe to the wanted channels only, and return what has arrived.

        If the connection is lost, it is what arrived before.
        """
        if self._connection is None:
            self._reconnect(wanted)
        connection = self._connection
        arrivals: Sequence[Arrival] = ()
        if connection is None:
            return arrivals
        try:
            if self._changed:
                self._align(connection, wanted)
            arrivals = connection.read(_READ_LIMIT)
            if self._outage.is_on and any(isinstance(one, Subscribed) for one in arrivals):
                self._outage.note_success()
            if not arrivals:
                connection.check()
        except LOST as error:
            self.close()
            self._next_attempt = monotonic() + self._outage.note_failure(error)
        return arrivals

    def close(self) -> None:
        """Close the connection, or abandon the attempt to make one."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.abandon()
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # A closed descriptor is no longer watched.
        if connection.socket is not None and connection.socket.fileno() >= 0:
            self._poller.forget(connection.socket.fileno())
        connection.close()

    def _align(self, connection: PubSubConnection, wanted: Collection[bytes]) -> None:
        changed, self._changed = self._changed, set()
        missing = [name for name in changed if name in wanted and name not in connection.channels]
        surplus = [name for name in changed if name not in wanted and name in connection.channels]
        if missing:
            connection.subscribe(missing)
        if surplus:
            connection.unsubscribe(surplus)

    def _reconnect(self, wanted: Collection[bytes]) -> None:
        attempt = self._attempt
        if attempt is None:
            if wanted and monotonic() >= self._next_attempt:
                self._attempt = Attempt(self._connect, PubSubConnection.close, self._waker)
                self._attempt.start("flask-sse-connect")
        elif attempt.is_done:
            self._attempt = None
            if attempt.result is not None:
                self._use(attempt.result, wanted)
            elif attempt.error is not None:
                unforeseen = not isinstance(attempt.error, LOST)
                pause = self._outage.note_failure(attempt.error, unforeseen=unforeseen)
                self._next_attempt = monotonic() + pause

    def _use(self, connection: PubSubConnection, wanted: Collection[bytes]) -> None:
        self._connection = connection
        # A new connection subscribes to the channels that are wanted now.
        self._changed.update(wanted)
        if connection.socket is not None:
            self._poller.register(connection.socket.fileno(), READ)
