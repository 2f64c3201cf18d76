"""The loop of a hub: Redis, requests, the clients' sockets, timers, the shutdown.

It runs in its own thread, or greenlet if gevent has patched. Only this thread uses the objects
that it owns; other threads leave requests. It never blocks on Redis or on a client.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import redis
from flask.json.provider import JSONProvider

from flask_sse import _gevent, _history, _server
from flask_sse._channel import Channel, Listener
from flask_sse._clients import Clients
from flask_sse._connection import Connection
from flask_sse._history import Entry
from flask_sse._log_reader import Answer
from flask_sse._logged import Foreign, LoggedChannel
from flask_sse._logs import History, Logs
from flask_sse._message import COMMENT, encode, from_payload
from flask_sse._notices import Notices
from flask_sse._outage import Outage
from flask_sse._poller import READ, Poller
from flask_sse._pubsub import Arrival, Published, Refused
from flask_sse._signals import messages_delivered
from flask_sse._subscriber import Batch, Follower, Subscriber
from flask_sse._subscription import Connect, Subscription
from flask_sse._visit import CLIENT, ERROR, REDIS, STOP
from flask_sse._waker import Waker
from flask_sse._watch import Watch

_log: Final = logging.getLogger("flask_sse")

CONFIRM_WITHIN: Final = 4.0
"""Seconds that a client waits for Redis to confirm its subscription."""

_TICK: Final = 0.5
_STOP_GRACE: Final = 1.0
_EXPENSIVE: Final = 0.001
_GATHER: Final = 0.005
_MOST_WARNINGS: Final = 100
_TURN: Final = 0.02
"""Seconds after which other greenlets may run."""


class Request(NamedTuple):
    """A request from another thread."""

    channel: bytes
    listener: Listener
    joins: bool


class Options(NamedTuple):
    """The options of an owner."""

    connect: Connect
    provider: JSONProvider
    keepalive: float | None
    """A connection is sent a comment within this many seconds of silence."""
    linger: float
    """Seconds for which an unused connection to Redis is kept."""
    history: History | None = None
    notices: Notices | None = None
    """Sends the signals about delivered messages, if they have receivers."""


class Owner:
    """Owns the connection to Redis, the clients' connections, and the channels.

    :param requests: The requests from other threads, in order.
    :param watch: The clients whose streams the server reads.
    """

    def __init__(
        self, options: Options, outage: Outage, requests: deque[Request], watch: Watch
    ) -> None:
        self._options = options
        self._requests = requests
        self._watch = watch
        self.waker = Waker()
        self.stop_requested = False
        """Set by other threads to end all streams."""
        self.has_stopped = threading.Event()
        """Set when no streams are left after that."""
        self.rest_requested = False
        """Set by other threads to make it end as soon as there are no listeners."""
        self.has_rested = threading.Event()
        """Set when it has ended after that, or found new listeners."""
        self.thread: threading.Thread | None = None
        self._poller = Poller()
        self._poller.register(self.waker.fileno(), READ)
        if (descriptor := watch.fileno()) is not None:
            self._poller.register(descriptor, READ)
        self._subscription = Subscription(options.connect, outage, self._poller, self.waker)
        self._clients = Clients(self._poller, options.keepalive)
        self._channels: dict[bytes, Channel] = {}
        self._idle_since: float | None = None
        self._malformed = 0
        self._refused = 0
        self._warned: set[bytes] = set()
        self._stopping_since: float | None = None
        self._yielded = time.monotonic()
        keepalive = options.keepalive
        self._tick = _TICK if keepalive is None else min(_TICK, keepalive / 4)
        self._logs: Logs | None = None
        if options.history is not None:
            self._logs = Logs(options.history, options.provider, self.waker)
        self._pause = self._let_others_run if _gevent.is_patched() else _do_nothing

    def run(self, retire: Callable[[], bool]) -> None:
        """Work as long as there is something to do.

        :param retire: Returns whether it may end; `False` if there are new requests.
        """
        self.thread = threading.current_thread()
        while True:
            try:
                while not self._is_idle() or not retire():
                    self._turn()
            except Exception:  # noqa: BLE001 - the streams need an owner after any error
                _log.exception("the event hub has failed and continues")
                time.sleep(_TICK)
            else:
                break
        self.close()
        self.has_rested.set()

    def close(self) -> None:
        """Close all descriptors."""
        self._subscription.close()
        if self._logs is not None:
            self._logs.close()
        # Close the poller before the descriptors that it watches.
        self._poller.close()
        self.waker.close()

    def _turn(self) -> None:
        self._wait()
        self._process_requests()
        if self._logs is not None:
            self._logs.collect()
        self._serve_redis()
        self._serve_logs()
        self._keep_time()
        self._check_shutdown()

    def _wait(self) -> None:
        # Without channels, Redis is not needed.
        longest = self._tick
        timeout = self._subscription.timeout(longest) if self._channels else longest
        ready = self._poller.poll(timeout)
        # Other greenlets have run in the meantime.
        self._yielded = time.monotonic()
        for descriptor, events in ready:
            if descriptor == self.waker.fileno():
                self.waker.clear()
            elif descriptor == self._watch.fileno():
                self._watch.end_gone()
            else:
                self._serve_client(descriptor, events)

    def _is_idle(self) -> bool:
        self._process_requests()
        if self._has_work():
            self._idle_since = None
            if self.rest_requested and self._channels:
                self.rest_requested = False
                self.has_rested.set()
            return False
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        return (
            not self._subscription.is_connected
            or self.rest_requested
            or self._stopping_since is not None
            or now - self._idle_since >= self._options.linger
        )

    def _has_work(self) -> bool:
        if self._stopping_since is not None:
            # Also wait for streams that the server reads: a client may delay one.
            return bool(self._clients or self._watch)
        return bool(
            self._channels
            or self._clients
            or self._subscription.is_connecting
            or (self._logs is not None and self._logs.is_reading)
            or self.stop_requested
        )

    # Requests: who listens to what

    def _process_requests(self) -> None:
        while self._requests:
            request = self._requests.popleft()
            if request.joins:
                self._add(request.channel, request.listener)
            else:
                self._remove(request.channel, request.listener)
        for name, follower in self._logs.drained() if self._logs is not None else ():
            if isinstance(channel := self._channels.get(name), LoggedChannel):
                channel.refill(follower)
                self._settle_logged(channel)

    def _add(self, name: bytes, listener: Listener) -> None:
        if self._stopping_since is not None:
            self._turn_away(listener)
            return
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = self._new_channel(name)
        self._subscription.note_change(name)
        if isinstance(listener, Connection) and not self._serve(listener, channel):
            return
        if isinstance(listener, Follower) and self._logs is not None:
            self._logs.watch(name, listener)
        channel.add(listener)
        if self._subscription.is_confirmed(name):
            self._confirm(channel)

    def _new_channel(self, name: bytes) -> Channel:
        logs = self._logs
        logged = logs.new_channel(name, self._decode, self._pause) if logs is not None else None
        channel = Channel(name) if logged is None else logged
        channel.report = self._report
        return channel

    def _turn_away(self, listener: Listener) -> None:
        listener.reason = STOP
        if isinstance(listener, Connection):
            listener.reject()
            listener.close()
        else:
            listener.end()

    def _serve(self, connection: Connection, channel: Channel) -> bool:
        connection.channel = channel.name
        connection.commented = time.monotonic()
        try:
            self._clients.add(connection, connection.commented + CONFIRM_WITHIN)
        except OSError:
            # The user can't watch more descriptors (epoll(7), max_user_watches).
            _log.exception("a client is rejected because its socket can't be watched")
            connection.reason = ERROR
            connection.reject()
            self._drop(connection)
            return False
        return True

    def _remove(self, name: bytes, listener: Listener) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        channel.discard(listener)
        if not channel:
            self._subscription.note_change(name)
            del self._channels[name]
            if self._logs is not None:
                self._logs.forget(channel)

    def _confirm(self, channel: Channel) -> None:
        for connection in channel.confirm():
            self._drop(connection)
        if isinstance(channel, LoggedChannel):
            self._settle_logged(channel)

    def _end(self, listener: Listener, reason: str, error: Exception | None = None) -> None:
        """End a stream properly; data that waits for a client is sent first."""
        if isinstance(listener, Subscriber):
            listener.error = error
            listener.reason = reason
            listener.end()
        elif not listener.is_closing:
            listener.reason = reason
            listener.reject() if not listener.is_open else listener.finish()
            self._remove(listener.channel, listener)
            # Don't wait for a client that does not read, except at shutdown.
            if not listener.is_lagging or listener.is_gone or self._stopping_since is None:
                self._drop(listener)

    def _drop(self, connection: Connection) -> None:
        """Close a connection."""
        self._remove(connection.channel, connection)
        self._clients.discard(connection)
        if connection.overflowed:
            _log_overflow(connection.channel)
        connection.close()

    # The clients' sockets

    def _serve_client(self, descriptor: int, events: int) -> None:
        connection, has_left = self._clients.look_up(descriptor, events)
        if connection is None:
            # This is the descriptor of Redis, which is read in every turn.
            return
        if connection.is_lagging:
            connection.flush()
            self._settle(connection)
        if connection.is_gone:
            self._drop(connection)
        elif has_left:
            self._end(connection, CLIENT)

    def _settle(self, connection: Connection) -> None:
        """Update the state of a connection after it has accepted waiting data."""
        channel = self._channels.get(connection.channel)
        if connection.is_closing:
            if not connection.is_lagging:
                self._drop(connection)
        elif channel is not None and connection.is_open:
            channel.place(connection)
            if isinstance(channel, LoggedChannel):
                self._settle_logged(channel)

    def _keep_time(self) -> None:
        now = time.monotonic()
        for connection in self._clients.overdue(now):
            self._end(connection, REDIS)
        comment = Batch((), COMMENT)
        for connection in self._clients.in_turn(now):
            self._send_comment(connection, comment)
            self._pause()
        for logged in self._logs.silent(now) if self._logs is not None else ():
            if self._subscription.is_confirmed(logged.name):
                logged.fill()

    def _send_comment(self, connection: Connection, comment: Batch) -> None:
        channel = self._channels.get(connection.channel)
        keepalive = self._options.keepalive
        if channel is None or keepalive is None or not connection.is_open or connection.is_lagging:
            return
        if comment.time - max(channel.sent, connection.commented) < keepalive * 0.75:
            return
        connection.commented = comment.time
        connection.send(comment)
        if connection.is_gone:
            self._drop(connection)
        elif connection.is_lagging:
            channel.place(connection)

    # Redis

    def _serve_redis(self) -> None:
        begin = time.monotonic()
        self._dispatch(self._subscription.read(self._channels))
        spent = time.monotonic() - begin
        if spent > _EXPENSIVE and not self._subscription.has_more:
            # The first event of a burst has been sent alone. The others gather in the meantime,
            # and this pause gathers more: sending many events takes as many calls as sending one.
            time.sleep(min(spent / 2, _GATHER))

    def _dispatch(self, arrivals: Iterable[Arrival]) -> None:
        # All events for a channel are written together: one system call per client
        # sends many events.
        payloads: dict[bytes, list[bytes]] = {}
        for arrival in arrivals:
            name = arrival.channel
            if isinstance(arrival, Refused):
                self._refuse(name, arrival.error)
            elif name not in self._channels:
                continue
            elif isinstance(arrival, Published):
                payloads.setdefault(name, []).append(arrival.payload)
            else:
                # Events from an earlier subscription are not for the listeners that wait
                # for this one: there is a gap in between.
                self._fan_out(name, payloads.pop(name, []))
                self._begin(self._channels[name])
        for name, some in payloads.items():
            self._fan_out(name, some)

    def _fan_out(self, name: bytes, payloads: Sequence[bytes]) -> None:
        channel = self._channels.get(name)
        if channel is None or not payloads:
            return
        if isinstance(channel, LoggedChannel):
            channel.receive(payloads)
            self._settle_logged(channel)
            return
        batch = self._to_batch(name, payloads)
        if not batch.frames:
            return
        for listener in channel.send(batch, self._pause):
            self._give_up(name, listener)

    def _give_up(self, name: bytes, listener: Listener) -> None:
        if isinstance(listener, Connection):
            self._drop(listener)
            return
        if listener.overflowed:
            _log_overflow(name)
            self._watch.disconnect(listener)
        self._remove(name, listener)

    def _report(self, channel: Channel, batch: Batch, listeners: int, *, replayed: bool) -> None:
        notices = self._options.notices
        if (
            notices is None
            or not messages_delivered.receivers
            or not batch.payloads
            or not listeners
        ):
            return
        notices.later(
            messages_delivered,
            channel=channel.name.decode(errors="replace"),
            messages=len(batch.payloads),
            listeners=listeners,
            lagging=channel.lagging,
            duration=0.0 if replayed else time.monotonic() - batch.time,
            replayed=replayed,
        )

    def _begin(self, channel: Channel) -> None:
        """Continue with a channel after Redis has confirmed its subscription."""
        if isinstance(channel, LoggedChannel):
            channel.verify()
        else:
            self._confirm(channel)

    def _to_batch(self, name: bytes, payloads: Iterable[bytes]) -> Batch:
        sound: list[bytes] = []
        frames: list[bytes] = []
        for payload in payloads:
            try:
                frames.append(
                    encode(from_payload(payload, self._options.provider), self._options.provider)
                )
            except Exception as error:  # noqa: BLE001 - a JSON provider may raise anything
                self._note_malformed(name, error)
            else:
                sound.append(payload)
        return Batch(sound, b"".join(frames))

    def _note_malformed(self, name: bytes, error: Exception) -> None:
        self._malformed += 1
        _log_dropped("malformed event", self._malformed, name, error)

    def _refuse(self, name: bytes, error: Exception) -> None:
        """End only the streams of a channel that Redis forbids."""
        self._refused += 1
        _log_dropped("subscription", self._refused, name, error)
        channel = self._channels.pop(name, None)
        if channel is None:
            return
        if self._logs is not None:
            self._logs.forget(channel)
        self._subscription.note_change(name)
        for listener in channel:
            channel.discard(listener)
            self._end(listener, REDIS, error)

    # The logs of channels with history

    def _decode(self, name: bytes, payload: bytes) -> Entry | Foreign | None:
        """Decode an event of a channel with history."""
        assert self._logs is not None
        try:
            event = self._logs.decode(payload)
        except Exception as error:  # noqa: BLE001 - a JSON provider may raise anything
            self._note_malformed(name, error)
            return None
        is_new = name not in self._warned and len(self._warned) < _MOST_WARNINGS
        if isinstance(event, Foreign) and is_new:
            self._warned.add(name)
            _log.warning(
                "channel %s has history, but somebody publishes to it without history: such events "
                "have no id and reach connected clients only; SSE_HISTORY and the database in "
                "REDIS_URL must be the same for all publishers",
                format_channel(name),
            )
        return event

    def _serve_logs(self) -> None:
        logs = self._logs
        if logs is None:
            return
        for answer in logs.answers():
            self._serve_log(logs, answer)
        logs.ask(time.monotonic())

    def _serve_log(self, logs: Logs, answer: Answer) -> None:
        question, page, malformed, error = answer
        channel = question.asker
        for one in malformed:
            self._note_malformed(channel.name, one)
        if page is None:
            if isinstance(error, redis.ResponseError) and _history.is_forbidden(error):
                self._refuse(channel.name, _history.explain(error))
            else:
                logs.note_failure(question, error)
            return
        if question.is_fill:
            channel.take_fill(page)
        else:
            channel.take_page(page)
        self._settle_logged(channel)

    def _settle_logged(self, channel: LoggedChannel) -> None:
        """Process the results that a channel with history has left."""
        troubled, channel.troubled = channel.troubled, []
        for listener in troubled:
            self._give_up(channel.name, listener)
        reason, channel.reset_reason = channel.reset_reason, ""
        if reason:
            _log.warning(
                "clients of channel %s are told that they may have missed events: %s",
                format_channel(channel.name),
                reason,
            )

    # The end

    def _check_shutdown(self) -> None:
        """End all streams once the server has been told to stop, or has stopped."""
        now = time.monotonic()
        if self._stopping_since is None:
            if not self.stop_requested and not _server.is_stopping():
                return
            self._stopping_since = now
            for channel in [*self._channels.values()]:
                for listener in channel:
                    self._end(listener, STOP)
                    self._pause()
            self._channels.clear()
        elif now - self._stopping_since > _STOP_GRACE:
            self._watch.disconnect_all()
            for connection in self._clients:
                self._drop(connection)
        if not self._clients:
            self.has_stopped.set()

    def _let_others_run(self) -> None:
        if time.monotonic() - self._yielded > _TURN:
            time.sleep(0)
            self._yielded = time.monotonic()


def _do_nothing() -> None:
    """Threads need no pause: the interpreter switches between them."""


def format_channel(name: bytes) -> str:
    """Return a channel's name as it appears in log messages."""
    return repr(name[:100].decode(errors="replace"))


def _log_overflow(name: bytes) -> None:
    _log.warning(
        "a client of channel %s is disconnected: more than SSE_MAX_PENDING bytes waited for it",
        format_channel(name),
    )


def _log_dropped(what: str, number: int, name: bytes, error: Exception) -> None:
    # A publisher of malformed events, or a client that requests forbidden channels, could fill
    # the log. So the first is logged, and then only numbers that are powers of two.
    if number & (number - 1) == 0:
        text = "dropped %s number %d, on channel %s: %.200s"
        _log.warning(text, what, number, format_channel(name), error)
