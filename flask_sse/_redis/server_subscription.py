"""The hub's subscription to Redis: connects, subscribes, and starts again after a loss.

Only the hub's owner uses it. Nothing blocks: connections are made in a separate thread.
"""

import time
from collections.abc import Callable, Collection, Iterator
from typing import Final

from flask_sse import _gevent
from flask_sse._outage import Outage
from flask_sse._poller import READ, Poller
from flask_sse._pubsub import LOST, Arrival, PubSubConnection, Subscribed
from flask_sse._waker import Waker

Connect = Callable[[], PubSubConnection]
"""Makes a connection to Redis. It may block, and may raise any exception."""

_POLL_INTERVAL: Final = 0.02
_READ_LIMIT: Final = 1 << 16


class Subscription:
    """The subscriptions to the wanted channels, on a connection that may be lost and replaced.

    :param poller: Watches the connection's descriptor.
    :param waker: Ends the owner's wait when there is a connection.
    """

    def __init__(self, connect: Connect, outage: Outage, poller: Poller, waker: Waker) -> None:
        self._connect = connect
        self._outage = outage
        self._poller = poller
        self._waker = waker
        self._connection: PubSubConnection | None = None
        self._attempt: _Attempt | None = None
        self._next_attempt = 0.0
        # The channels whose subscription may have to change.
        self._changed: set[bytes] = set()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    @property
    def is_connecting(self) -> bool:
        """Whether a thread is working whose result the owner must handle."""
        return self._attempt is not None

    @property
    def has_more(self) -> bool:
        """Whether :meth:`read` has left data that a poller may not see."""
        return self._connection is not None and self._connection.has_more

    def timeout(self, longest: float) -> float:
        """Return how many seconds the owner may wait for descriptors."""
        if self._connection is None:
            if self._attempt is not None:
                return longest
            return min(longest, max(0.0, self._next_attempt - time.monotonic()))
        if self._connection.has_more:
            return 0.0
        return min(longest, _POLL_INTERVAL) if self._connection.must_be_polled else longest

    def note_change(self, channel: bytes) -> None:
        """Make the next :meth:`read` check whether a channel is wanted."""
        self._changed.add(channel)

    def is_confirmed(self, channel: bytes) -> bool:
        """Whether Redis has confirmed that it sends this channel's events."""
        return self._connection is not None and self._connection.is_confirmed(channel)

    def read(self, wanted: Collection[bytes]) -> Iterator[Arrival]:
        """Subscribe to the wanted channels only, and yield what has arrived.

        If the connection is lost, the iteration ends, after everything that arrived before.
        """
        if self._connection is None:
            self._reconnect(wanted)
        connection = self._connection
        if connection is None:
            return
        try:
            self._align(connection, wanted)
            for arrival in connection.read(_READ_LIMIT):
                if isinstance(arrival, Subscribed):
                    self._outage.note_success()
                yield arrival
            connection.check()
        except LOST as error:
            self.close()
            self._next_attempt = time.monotonic() + self._outage.note_failure(error)

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
        if not self._changed:
            return
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
            if wanted and time.monotonic() >= self._next_attempt:
                self._attempt = _Attempt(self._connect, self._waker)
                self._attempt.start()
        elif attempt.is_done:
            self._attempt = None
            if attempt.connection is not None:
                self._use(attempt.connection, wanted)
            elif attempt.error is not None:
                unforeseen = not isinstance(attempt.error, LOST)
                pause = self._outage.note_failure(attempt.error, unforeseen=unforeseen)
                self._next_attempt = time.monotonic() + pause

    def _use(self, connection: PubSubConnection, wanted: Collection[bytes]) -> None:
        self._connection = connection
        # A new connection subscribes to the channels that are wanted now.
        self._changed.update(wanted)
        if connection.socket is not None:
            self._poller.register(connection.socket.fileno(), READ)


class _Attempt:
    """An attempt to connect, in a thread: Redis must not delay the clients."""

    def __init__(self, connect: Connect, waker: Waker) -> None:
        self._connect = connect
        self._waker = waker
        self.connection: PubSubConnection | None = None
        self.error: Exception | None = None
        self.is_done = False
        self._is_abandoned = False

    def start(self) -> None:
        try:
            _gevent.start_beside(self._run, "flask-sse-connect")
        except RuntimeError as error:
            # The process is out of threads.
            self.error = error
            self.is_done = True

    def abandon(self) -> None:
        """Close the connection now, or as soon as it is made."""
        self._is_abandoned = True
        if self.connection is not None:
            self.connection.close()

    def _run(self) -> None:
        try:
            self.connection = self._connect()
            if self._is_abandoned:
                self.connection.close()
        except Exception as error:  # noqa: BLE001 - there is another attempt after any error
            self.error = error
        finally:
            self.is_done = True
            self._waker.set()
