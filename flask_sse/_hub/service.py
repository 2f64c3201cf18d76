"""Serves each listener, from the request to join until the end of its stream.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import redis

from flask_sse._callbacks.stream_signals import AGE, CLIENT, ERROR, REDIS, STOP
from flask_sse._event.channel_name import CONTROL, Key
from flask_sse._hub.audience import Audience
from flask_sse._hub.clients import Clients
from flask_sse._hub.connection import Connection
from flask_sse._hub.control import Control, Wanted
from flask_sse._hub.deadlines import Deadline, Deadlines
from flask_sse._hub.hangups import Watch
from flask_sse._hub.listener import Client, Listener
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

C = TypeVar("C", bound=Client)

CONFIRM_WITHIN: Final = 4.0
"""Seconds that a client waits for Redis to confirm its subscription."""
_READ_WITHIN: Final = 10.0
"""Seconds for which a client may read what waits for it after its stream has ended."""
_END_AT_ONCE: Final = 2
"""How many streams end together, while others wait for their events."""
END_EVERY: Final = 0.002
"""Seconds until the next ones end, if there are more that must."""


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
        self._deadlines = Deadlines()
        self._control = Control(self._deadlines, audience.complaints, subscription.note_change)
        self.wanted = Wanted(audience.names, self._control)
        """The channels that must be subscribed."""
        self.must_end_more = False
        """Whether :meth:`end_due` has left streams that must end as soon as possible."""
        self._end_again = -math.inf

    @property
    def has_listeners(self) -> bool:
        """Whether there are listeners, including those that wait for the control channel."""
        return bool(self._audience) or self._control.is_awaited

    def join(self, key: Key, subscriber: Subscriber) -> None:
        """Add a subscriber to a channel or to several, or end its stream."""
        self._join(key, subscriber, self._watch_drained)

    def adopt(self, key: Key, connection: Connection) -> None:
        """Serve a connection and add it to a channel or to several, or end its stream."""
        self._join(key, connection, self._serve)

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber whose stream the server has ended."""
        self._audience.discard(subscriber)
        self._deadlines.discard(subscriber)
        self._control.discard(subscriber)

    def _join(self, key: Key, client: C, prepare: Callable[[C], bool]) -> None:
        client.channel = key
        try:
            if self._shutdown.has_begun:
                self._end(client, STOP)
            elif prepare(client):
                if client.end_by is not None:
                    self._deadlines.add(client.end_by, client, AGE)
                if self._may_begin(client):
                    self._add(client)
            else:
                self._end(client, ERROR)
        except BaseException:
            # Nothing else may know this client, which has a descriptor and a place.
            self._end(client, ERROR)
            raise

    def _watch_drained(self, subscriber: Subscriber) -> bool:
        if self._logs is not None:
            self._logs.watch(subscriber)
        return True

    def _serve(self, connection: Connection) -> bool:
        connection.commented = monotonic()
        try:
            self._clients.add(connection, connection.commented + CONFIRM_WITHIN)
        except OSError:
            # The user can't watch more descriptors (epoll(7), max_user_watches).
            _log.exception("a client is rejected because its socket can't be watched")
            return False
        return True

    def _may_begin(self, client: Client) -> bool:
        """Whether a stream need not wait for the control channel."""
        if client.identity is None:
            return True
        if not self._subscription.is_confirmed(CONTROL):
            self._control.wait(client, client.identity)
            return False
        self._control.serve(client, client.identity, monotonic())
        return True

    def _add(self, client: Client) -> None:
        added = self._audience.open(client.channel)
        added.add(client)
        for channel in added.channels:
            if self._subscription.is_confirmed(channel.name):
                self.give_up(channel.confirm())

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
            self._drop(connection)
        elif has_left and not connection.is_closing:
            self._end(connection, CLIENT)
        return True

    def _settle(self, connection: Connection) -> None:
        """Update the state of a connection after it has accepted waiting data."""
        channel = self._audience.get(connection.channel)
        if connection.is_closing:
            if not connection.is_lagging:
                self._drop(connection)
        elif channel is not None and connection.is_open:
            self.give_up(channel.place(connection))

    def keep_time(self, now: float) -> None:
        """Send comments, end streams that have not opened in time, and compare silent logs."""
        for connection in self._clients.overdue(now):
            self._end(connection, REDIS)
        for connection in self._clients.comment(now, self._audience.sent, self._pause):
            if connection.is_gone:
                self._drop(connection)
            else:
                self._settle(connection)
        if self._control.is_wanted:
            is_missing = self._subscription.is_connected and not self._subscription.is_confirmed(
                CONTROL
            )
            self._control.keep_time(now, is_missing=is_missing)
        for logged in self._logs.silent(now) if self._logs is not None else ():
            if self._subscription.is_confirmed(logged.name):
                self.give_up(logged.compare())

    # Redis

    def dispatch(self, arrivals: Sequence[Arrival]) -> None:
        """Process data from the subscription."""
        if self._control.is_wanted:
            arrivals = [one for one in arrivals if not self._serve_control(one)]
        if len(arrivals) == 1 and isinstance(arrivals[0], Delivered):
            name, payload = arrivals[0]
            self.give_up(self._audience.arrived(name, [payload]))
            return
        # All events for a channel are written together: one system call per client
        # sends many events.
        payloads: dict[bytes, list[bytes]] = {}
        for arrival in arrivals:
            name = arrival.channel
            if isinstance(arrival, Refused):
                self._refuse(name, arrival.error)
            elif (channel := self._audience.channel(name)) is None:
                continue
            elif isinstance(arrival, Delivered):
                payloads.setdefault(name, []).append(arrival.payload)
            else:
                # Events from an earlier subscription are not for the listeners that wait
                # for this one: there is a gap in between.
                self.give_up(self._audience.arrived(name, payloads.pop(name, [])))
                self.give_up(channel.begin())
        for name, some in payloads.items():
            self.give_up(self._audience.arrived(name, some))

    def _serve_control(self, arrival: Arrival) -> bool:
        """Process what has arrived on the control channel; return whether it is from there."""
        if arrival.channel != CONTROL:
            return False
        now = monotonic()
        match arrival:
            case Delivered(_, payload):
                self._control.arrived(payload, now)
            case Refused(_, error):
                for client in self._control.refused(error, now):
                    self._end(client, REDIS, error)
            case _:
                for client in self._control.confirmed(now):
                    self._add(client)
                    self._pause()
        return True

    def _refuse(self, name: bytes, error: Exception) -> None:
        """End only the streams of a channel that Redis forbids."""
        self._audience.complaints.refused(name, error)
        channel = self._audience.close(name)
        if channel is None:
            return
        for listener in channel:
            channel.discard(listener)
            self._end(listener.whole, REDIS, error)

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
        self.give_up(channel.answered(page, is_fill=question.is_fill))

    # The end of a stream

    def give_up(self, listeners: Iterable[Listener]) -> None:
        """Drop the listeners that a channel has returned: they are gone, or have ended."""
        for client in [listener.whole for listener in listeners]:
            if client.is_finishing:
                # It is dropped when it has accepted what waits.
                self._audience.discard(client)
            else:
                self._drop(client)

    def end_due(self, now: float) -> None:
        """End the streams that must end by now, or the first few of many."""
        if now < self._end_again:
            return
        for deadline in self._deadlines.take(now, _END_AT_ONCE):
            self._end_due(deadline, now)
            self._pause()
        self.must_end_more = self._deadlines.is_due(now)
        self._end_again = now + END_EVERY if self.must_end_more else -math.inf

    def _end_due(self, deadline: Deadline, now: float) -> None:
        client, reason = deadline.client, deadline.reason
        if reason is None:
            self._watch.disconnect(client)
            self._drop(client)
            return
        has_ended = client.end(reason)
        self._audience.discard(client)
        self._control.discard(client)
        if has_ended and client.descriptor >= 0:
            self._drop(client)
        else:
            # The hub or the server sends what waits for the client, which may not read it.
            self._deadlines.add(now + _READ_WITHIN, client, None)

    def end_all(self) -> None:
        """End all streams, because the server stops."""
        for client in self._control.take_waiting():
            self._end(client, STOP)
        for channel in self._audience:
            for client in [listener.whole for listener in channel]:
                has_ended = client.end(STOP)
                self._audience.discard(client)
                if has_ended:
                    self._drop(client)
                self._pause()

    def drop_all(self) -> None:
        """Close the streams that have not ended by themselves."""
        self._watch.disconnect_all()
        for connection in self._clients:
            self._drop(connection)

    def _end(self, client: Client, reason: str, error: Exception | None = None) -> None:
        """End a stream properly, but don't wait for a client that does not read."""
        client.end(reason, error)
        self._drop(client)

    def _drop(self, client: Client) -> None:
        """Forget a client of either kind, and close what the hub owns of it."""
        self._audience.discard(client)
        self._clients.discard(client)
        self._deadlines.discard(client)
        self._control.discard(client)
        if client.overflowed:
            self._audience.complaints.overflowed(client.channel)
            self._watch.disconnect(client)
        client.close()
