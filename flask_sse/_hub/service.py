"""Serves each listener, from the request to join until the end of its stream.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import redis

from flask_sse._callbacks.stream_signals import CLIENT, ERROR, REDIS, STOP
from flask_sse._hub.audience import Audience
from flask_sse._hub.clients import Clients
from flask_sse._hub.connection import Connection
from flask_sse._hub.hangups import Watch
from flask_sse._hub.listener import Listener
from flask_sse._hub.log_queries import Logs
from flask_sse._hub.logged_channel import LoggedChannel
from flask_sse._hub.shutdown import Shutdown
from flask_sse._hub.subscriber import Subscriber
from flask_sse._redis import log_commands
from flask_sse._redis.log_reader import Answer
from flask_sse._redis.pubsub import Arrival, Delivered, Refused
from flask_sse._redis.subscription import Subscription
from flask_sse._system.clock import monotonic

_log: Final = logging.getLogger("flask_sse")

L = TypeVar("L", bound=Listener)

CONFIRM_WITHIN: Final = 4.0
"""Seconds that a client waits for Redis to confirm its subscription."""


class Service:
    """Serves the listeners of all channels.

    :param watch: The clients whose streams the server reads.
    :param logs: The channels with history; `None` if none has.
    :param shutdown: Says whether listeners are turned away.
    :param pause: Called now and then, to let others run.
    """

    def __init__(
        self,
        audience: Audience,
        clients: Clients,
        watch: Watch,
        subscription: Subscription,
        logs: Logs | None,
        *,
        shutdown: Shutdown,
        pause: Callable[[], None],
    ) -> None:
        self._audience = audience
        self._clients = clients
        self._watch = watch
        self._subscription = subscription
        self._logs = logs
        self._shutdown = shutdown
        self._pause = pause

    def join(self, name: bytes, subscriber: Subscriber) -> None:
        """Add a subscriber to a channel, or end its stream."""
        self._join(name, subscriber, self._watch_drained)

    def adopt(self, name: bytes, connection: Connection) -> None:
        """Serve a connection and add it to a channel, or end its stream."""
        self._join(name, connection, self._serve)

    def _join(self, name: bytes, listener: L, prepare: Callable[[bytes, L], bool]) -> None:
        try:
            if self._shutdown.has_begun:
                self._end(name, listener, STOP)
            elif prepare(name, listener):
                self._add(name, listener)
            else:
                self._end(name, listener, ERROR)
        except BaseException:
            # Nothing else may know this listener, which has a descriptor and a place.
            self._end(name, listener, ERROR)
            raise

    def _watch_drained(self, name: bytes, subscriber: Subscriber) -> bool:
        if self._logs is not None:
            self._logs.watch(name, subscriber)
        return True

    def _serve(self, name: bytes, connection: Connection) -> bool:
        connection.channel = name
        connection.commented = monotonic()
        try:
            self._clients.add(connection, connection.commented + CONFIRM_WITHIN)
        except OSError:
            # The user can't watch more descriptors (epoll(7), max_user_watches).
            _log.exception("a client is rejected because its socket can't be watched")
            return False
        return True

    def _add(self, name: bytes, listener: Listener) -> None:
        channel = self._audience.open(name)
        channel.add(listener)
        if self._subscription.is_confirmed(name):
            self.give_up(name, channel.confirm())

    # The clients' sockets

    def serve_socket(self, descriptor: int, events: int) -> bool:
        """Process the events that the poller reports for a client's socket.

        :return: whether it is one.
        """
        connection, has_left = self._clients.look_up(descriptor, events)
        if connection is None:
            return False
        if connection.is_lagging:
            connection.flush()
            self._settle(connection)
        if connection.is_gone:
            self._drop(connection.channel, connection)
        elif has_left and not connection.is_closing:
            self._end(connection.channel, connection, CLIENT)
        return True

    def _settle(self, connection: Connection) -> None:
        """Update the state of a connection after it has accepted waiting data."""
        channel = self._audience.get(connection.channel)
        if connection.is_closing:
            if not connection.is_lagging:
                self._drop(connection.channel, connection)
        elif channel is not None and connection.is_open:
            self.give_up(channel.name, channel.place(connection))

    def keep_time(self, now: float) -> None:
        """Send comments, end streams that have not opened in time, and compare silent logs."""
        for connection in self._clients.overdue(now):
            self._end(connection.channel, connection, REDIS)
        for connection in self._clients.comment(now, self._audience.sent, self._pause):
            if connection.is_gone:
                self._drop(connection.channel, connection)
            else:
                self._settle(connection)
        for logged in self._logs.silent(now) if self._logs is not None else ():
            if self._subscription.is_confirmed(logged.name):
                self.give_up(logged.name, logged.compare())

    # Redis

    def dispatch(self, arrivals: Sequence[Arrival]) -> None:
        """Process data from the subscription."""
        if len(arrivals) == 1 and isinstance(arrivals[0], Delivered):
            name, payload = arrivals[0]
            self.give_up(name, self._audience.arrived(name, [payload]))
            return
        # All events for a channel are written together: one system call per client
        # sends many events.
        payloads: dict[bytes, list[bytes]] = {}
        for arrival in arrivals:
            name = arrival.channel
            if isinstance(arrival, Refused):
                self._refuse(name, arrival.error)
            elif (channel := self._audience.get(name)) is None:
                continue
            elif isinstance(arrival, Delivered):
                payloads.setdefault(name, []).append(arrival.payload)
            else:
                # Events from an earlier subscription are not for the listeners that wait
                # for this one: there is a gap in between.
                self.give_up(name, self._audience.arrived(name, payloads.pop(name, [])))
                self.give_up(name, channel.begin())
        for name, some in payloads.items():
            self.give_up(name, self._audience.arrived(name, some))

    def _refuse(self, name: bytes, error: Exception) -> None:
        """End only the streams of a channel that Redis forbids."""
        self._audience.complaints.refused(name, error)
        channel = self._audience.close(name)
        if channel is None:
            return
        for listener in channel:
            channel.discard(listener)
            self._end(name, listener, REDIS, error)

    def serve_logs(self, logs: Logs) -> None:
        """Process answers about logs, and ask the next questions."""
        for answer in logs.answers():
            self._serve_log(logs, answer)
        logs.ask(monotonic())

    def _serve_log(self, logs: Logs, answer: Answer[LoggedChannel]) -> None:
        question, page, malformed, error = answer
        channel = question.asker
        for one in malformed:
            self._audience.complaints.malformed(channel.name, one)
        if page is None:
            if isinstance(error, redis.ResponseError) and log_commands.is_forbidden(error):
                self._refuse(channel.name, log_commands.explain(error))
            else:
                logs.note_failure(question, error)
            return
        self.give_up(channel.name, channel.answered(page, is_fill=question.is_fill))

    # The end of a stream

    def give_up(self, name: bytes, listeners: Iterable[Listener]) -> None:
        """Drop the listeners that a channel has returned."""
        for listener in listeners:
            self._drop(name, listener)

    def end_all(self) -> None:
        """End all streams, because the server stops."""
        for channel in self._audience:
            for listener in channel:
                has_ended = listener.end(STOP)
                self._audience.discard(channel.name, listener)
                if has_ended:
                    self._drop(channel.name, listener)
                self._pause()

    def drop_all(self) -> None:
        """Close the streams that have not ended by themselves."""
        self._watch.disconnect_all()
        for connection in self._clients:
            self._drop(connection.channel, connection)

    def _end(
        self, name: bytes, listener: Listener, reason: str, error: Exception | None = None
    ) -> None:
        """End a stream properly, but don't wait for a client that does not read."""
        listener.end(reason, error)
        self._drop(name, listener)

    def _drop(self, name: bytes, listener: Listener) -> None:
        """Forget a listener of either kind, and close what the hub owns of it."""
        self._audience.discard(name, listener)
        self._clients.discard(listener)
        if listener.overflowed:
            self._audience.complaints.overflowed(name)
            self._watch.disconnect(listener)
        listener.close()
