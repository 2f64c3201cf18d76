"""The loop of a hub: its turns, its waits, its end.

It runs in its own thread, or greenlet if gevent has patched. Only this thread uses the objects
that it owns; other threads leave requests. It never blocks on Redis or on a client.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, NamedTuple

from flask.json.provider import JSONProvider

from flask_sse._callbacks.receivers import Notices
from flask_sse._event.channel_name import Key
from flask_sse._hub.audience import Audience
from flask_sse._hub.clients import Clients
from flask_sse._hub.connection import Connection
from flask_sse._hub.hangups import Watch
from flask_sse._hub.log_queries import History, Logs
from flask_sse._hub.service import END_EVERY, Service
from flask_sse._hub.shutdown import Shutdown
from flask_sse._hub.subscriber import Subscriber
from flask_sse._redis.outage import Outage
from flask_sse._redis.subscription import Subscribe
from flask_sse._system import greenlets
from flask_sse._system.clock import monotonic
from flask_sse._system.poller import READ, Poller, Waker

_log: Final = logging.getLogger("flask_sse")

_TICK: Final = 0.5
_LOOK_EVERY: Final = 0.02
_EXPENSIVE: Final = 0.001
_GATHER: Final = 0.005
_TURN: Final = 0.02
"""Seconds after which other greenlets may run."""


class Join(NamedTuple):
    """Subscribe a client that the server's thread sends to."""

    channel: Key
    subscriber: Subscriber


class Adopt(NamedTuple):
    """Serve a connection that has been handed over."""

    channel: Key
    connection: Connection


class Leave(NamedTuple):
    """End a subscription, if it still exists."""

    subscriber: Subscriber


Request = Join | Adopt | Leave
"""A request from another thread."""


class Options(NamedTuple):
    """The options of a loop."""

    subscribe: Subscribe
    provider: JSONProvider
    keepalive: float | None
    """A connection is sent a comment within this many seconds of silence."""
    linger: float
    """Seconds for which an unused connection to Redis is kept."""
    history: History | None = None
    notices: Notices | None = None
    """Sends the signals about delivered messages, if they have receivers."""
    is_stopping: Callable[[], bool] = bool
    """Whether the server has told this process to stop."""


class _InChildError(BaseException):
    """Ends a loop whose greenlet a forked child has inherited."""


class Loop:
    """Owns the connection to Redis, the clients' connections, and the channels.

    :param requests: The requests from other threads, in order.
    :param watch: The clients whose streams the server reads.
    :raises OSError: if the process is out of descriptors.
    """

    def __init__(
        self, options: Options, outage: Outage, requests: deque[Request], watch: Watch
    ) -> None:
        self._options = options
        self._requests = requests
        self._watch = watch
        self.stop_requested = False
        """Set by other threads to end all streams."""
        self._shutdown = Shutdown()
        self.has_stopped = self._shutdown.has_ended
        """Set when no streams are left after that, or when it has ended."""
        self.rest_requested = False
        """Set by other threads to make it end as soon as there are no listeners."""
        self.has_rested = threading.Event()
        """Set when it has ended after that, or found new listeners."""
        self.thread: threading.Thread | None = None
        with ExitStack() as undo:
            # The process may run out of descriptors.
            self.waker = Waker()
            undo.callback(self.waker.close)
            self._poller = Poller()
            undo.callback(self._poller.close)
            self._poller.register(self.waker.fileno(), READ)
            if (descriptor := watch.fileno()) is not None:
                self._poller.register(descriptor, READ)
            undo.pop_all()
        self._subscription = options.subscribe(outage, self._poller, self.waker)
        self._clients = Clients(self._poller, options.keepalive)
        self._idle_since: float | None = None
        self._yielded = monotonic()
        self._is_in_child = False
        keepalive = options.keepalive
        self._tick = _TICK if keepalive is None else min(_TICK, keepalive / 4)
        self._look_every = min(_LOOK_EVERY, self._tick)
        self._look_at = 0.0
        self._logs: Logs | None = None
        if options.history is not None:
            self._logs = Logs(options.history, options.provider, self.waker)
        self._pause = self._let_others_run if greenlets.is_patched() else _do_nothing
        self._audience = Audience(
            options.provider,
            self._logs,
            options.notices,
            self._subscription.note_change,
            self._pause,
        )
        self._service = Service(
            self._audience,
            self._clients,
            watch,
            self._subscription,
            self._logs,
            shutdown=self._shutdown,
            pause=self._pause,
        )

    def run(self, retire: Callable[[], bool]) -> None:
        """Work as long as there is something to do.

        :param retire: Returns whether it may end; `False` if there are new requests.
        """
        self.thread = threading.current_thread()
        while True:
            try:
                while not self._is_idle() or not retire():
                    self._turn()
            except _InChildError:
                return
            except Exception:  # noqa: BLE001 - the streams need a loop after any error
                if self._is_in_child:
                    return
                _log.exception("the event hub has failed and continues")
                # If the same happens again at once, it must not fill the log.
                time.sleep(_TICK)
            else:
                break
        self.close()
        self.has_rested.set()
        # It may have been told to stop when it had already found nothing to do.
        self._shutdown.finish()

    def close(self) -> None:
        """Close all descriptors."""
        self._subscription.close()
        if self._logs is not None:
            self._logs.close()
        # Close the poller before the descriptors that it watches.
        self._poller.close()
        self.waker.close()

    def release_in_child(self) -> None:
        """Close all descriptors in a forked child, and send nothing on them."""
        self._is_in_child = True
        pending = [one.connection for one in self._requests if isinstance(one, Adopt)]
        for connection in (*self._clients, *pending):
            connection.release_in_child()
        self._poller.release_in_child()

    def _turn(self) -> None:
        self._wait()
        self._process_requests()
        if self._logs is not None:
            self._logs.collect()
        self._serve_redis()
        if self._logs is not None:
            self._service.serve_logs(self._logs)
        now = monotonic()
        # Timers and the state of the server are checked regularly, not for each event.
        if now >= self._look_at or self.stop_requested or self._shutdown.has_begun:
            self._look_at = now + self._look_every
            self._service.keep_time(now)
            self._check_shutdown(now)
        self._service.end_due(now)

    def _wait(self) -> None:
        # Without channels, Redis is not needed.
        longest = END_EVERY if self._service.must_end_more else self._tick
        timeout = self._subscription.timeout(longest) if self._service.has_listeners else longest
        ready = self._poller.poll(timeout)
        self._check_process()
        # Other greenlets have run in the meantime.
        self._yielded = monotonic()
        for descriptor, events in ready:
            if descriptor == self.waker.fileno():
                self.waker.clear()
            elif descriptor == self._watch.fileno():
                self._watch.end_gone()
            elif not self._service.serve_socket(descriptor, events):
                self._subscription.note_ready(descriptor)

    def _is_idle(self) -> bool:
        self._process_requests()
        if self._has_work():
            self._idle_since = None
            if self.rest_requested and self._service.has_listeners:
                self.rest_requested = False
                self.has_rested.set()
            return False
        now = monotonic()
        if self._idle_since is None:
            self._idle_since = now
        return (
            not self._subscription.is_connected
            or self.rest_requested
            or self._shutdown.has_begun
            or now - self._idle_since >= self._options.linger
        )

    def _has_work(self) -> bool:
        if self._shutdown.has_begun:
            # Also wait for streams that the server reads: a client may delay one.
            return bool(self._clients or self._watch)
        return bool(
            self._service.has_listeners
            or self._clients
            or self._subscription.is_connecting
            or (self._logs is not None and self._logs.is_reading)
            or self.stop_requested
        )

    # Requests: who listens to what

    def _process_requests(self) -> None:
        while self._requests:
            match self._requests.popleft():
                case Join(key, subscriber):
                    self._service.join(key, subscriber)
                case Adopt(key, connection):
                    self._service.adopt(key, connection)
                case Leave(subscriber):
                    self._service.leave(subscriber)
        for subscriber in self._logs.drained() if self._logs is not None else ():
            if (channel := self._audience.get(subscriber.channel)) is not None:
                self._service.give_up(channel.refill(subscriber))

    # Redis

    def _serve_redis(self) -> None:
        begin = monotonic()
        self._service.dispatch(self._subscription.read(self._service.wanted))
        spent = monotonic() - begin
        if spent > _EXPENSIVE and not self._subscription.has_more:
            # The first event of a burst has been sent alone. The others gather in the meantime,
            # and this pause gathers more: sending many events takes as many calls as sending one.
            time.sleep(min(spent / 2, _GATHER))
            self._check_process()

    # The end

    def _check_shutdown(self, now: float) -> None:
        """End all streams once the server has been told to stop, or has stopped."""
        if not self._shutdown.has_begun:
            if not self.stop_requested and not self._options.is_stopping():
                return
            self._shutdown.begin(now)
            self._service.end_all()
        elif self._shutdown.is_overdue(now):
            self._service.drop_all()
        if not self._clients:
            self._shutdown.finish()

    def _let_others_run(self) -> None:
        if monotonic() - self._yielded > _TURN:
            time.sleep(0)
            self._check_process()
            self._yielded = monotonic()

    def _check_process(self) -> None:
        """Make sure that a view has not forked, in whose child this greenlet would continue."""
        if self._is_in_child:
            raise _InChildError


def _do_nothing() -> None:
    """Threads need no pause: the interpreter switches between them."""
