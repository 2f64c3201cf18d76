"""The one subscription of a process to a Redis, for all listeners.

All methods can be called from any thread, and only `stop` and `rest` block. The others leave
a request for the hub's loop, which starts with the first request and ends when there has
been nothing to do for a while.
"""

import atexit
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from flask.json.provider import JSONProvider

from flask_sse._callbacks.receivers import Notices
from flask_sse._event.channel_name import Key
from flask_sse._hub.connection import Connection
from flask_sse._hub.hangups import Watch
from flask_sse._hub.log_queries import History
from flask_sse._hub.loop import Adopt, Join, Leave, Loop, Options, Request
from flask_sse._hub.subscriber import Subscriber
from flask_sse._redis.outage import Outage
from flask_sse._redis.subscription import Subscribe
from flask_sse._system import forks, greenlets
from flask_sse._system.clock import monotonic

_STOP_WITHIN: Final = 1.5


class Hub:
    """Delivers each event of a channel to all listeners that have joined the channel.

    :param subscribe: Makes the subscriptions to Redis.
    :param provider: The application's JSON provider.
    :param keepalive: A client is sent a comment within this many seconds of silence.
    :param linger: Seconds for which an unused connection to Redis is kept.
    :param history: Which channels have a log, and how to read it.
    :param notices: Sends the signals, if they have receivers.
    :param is_stopping: Whether the server has told this process to stop.
    """

    def __init__(
        self,
        subscribe: Subscribe,
        provider: JSONProvider,
        *,
        keepalive: float | None = None,
        linger: float = 2.0,
        history: History | None = None,
        notices: Notices | None = None,
        is_stopping: Callable[[], bool] = bool,
    ) -> None:
        self._options = Options(
            subscribe, provider, keepalive, linger, history, notices, is_stopping
        )
        self._outage = Outage(notices)
        self._requests: deque[Request] = deque()
        self._watch = Watch()
        # Only for the loop's start and end. It is reentrant: while it is held, the
        # garbage collector may close a generator of messages, which leaves the hub.
        self._lock = threading.RLock()
        self._loop: Loop | None = None
        self._stops_at_exit = False
        forks.release_in_children(self)

    def join(
        self, channel: Key, subscriber: Subscriber, client: socket.socket | None = None
    ) -> None:
        """Subscribe to *channel*; the subscriber is told when Redis has confirmed it.

        :param channel: The channel, or several in order.
        :param client: The socket of the subscriber's client; the subscription ends when the
            client closes its side.
        :raises RuntimeError: if the process is out of threads.
        :raises OSError: if it is out of descriptors. Nothing is kept in either case.
        """
        try:
            if client is not None:
                self._watch.add(client, subscriber)
            with self._lock:
                # If no loop can be started, no request must wait for the next one.
                loop = self._ensure_loop()
                self._requests.append(Join(channel, subscriber))
                loop.waker.set()
        except BaseException:
            if client is not None:
                self._watch.discard(client, subscriber)
            raise

    def leave(self, subscriber: Subscriber, client: socket.socket | None = None) -> None:
        """End a subscription, if it still exists.

        :param client: The client that was passed to :meth:`join`. Its socket may be closed when
            this returns.
        """
        if client is not None:
            self._watch.discard(client, subscriber)
        with self._lock:
            # A loop that has ended has left no subscriptions.
            if self._loop is not None:
                self._requests.append(Leave(subscriber))
                self._loop.waker.set()

    def adopt(self, channel: Key, take: Callable[[], Connection]) -> None:
        """Serve a client's connection from now on.

        :param channel: The channel, or several in order.
        :param take: Takes the connection. It is called after every step that can fail.
        """
        with self._lock:
            loop = self._ensure_loop()
            if not self._stops_at_exit:
                self._stops_at_exit = True
                # A stopping server does not know about these streams and does not wait for them.
                atexit.register(self._stop_at_exit, os.getpid())
            self._requests.append(Adopt(channel, take()))
            loop.waker.set()

    def stop(self) -> None:
        """End all streams and wait until they have ended; clients that hang are disconnected."""
        with self._lock:
            loop = self._loop
            if loop is None:
                return
            loop.stop_requested = True
            loop.waker.set()
        deadline = monotonic() + _STOP_WITHIN
        while (left := deadline - monotonic()) > 0 and not loop.has_stopped.is_set():
            # gunicorn's gevent worker may get a signal to quit while it is already ending.
            with suppress(SystemExit):
                loop.has_stopped.wait(left)

    def rest(self, seconds: float) -> None:
        """Make the loop end now, not after a while, unless there are listeners; wait for it.

        :param seconds: How long to wait at most.
        """
        with self._lock:
            loop = self._loop
            if loop is None:
                return
            loop.has_rested.clear()
            loop.rest_requested = True
            loop.waker.set()
        loop.has_rested.wait(seconds)
        if self._loop is not loop and type(loop.thread) is threading.Thread:
            loop.thread.join(seconds)

    def wake(self) -> None:
        """Make the loop look for events now, although nothing has signaled that there are any."""
        loop = self._loop
        if loop is not None:
            loop.waker.set()

    def release_in_child(self) -> None:
        """Begin anew in a forked child, which has neither the loop's thread nor its streams."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.release_in_child()
        self._requests.clear()
        # Another thread may have held it.
        self._lock = threading.RLock()
        forks.release_in_children(self)

    def _stop_at_exit(self, pid: int) -> None:
        if os.getpid() == pid:
            self.stop()
            if self._options.notices is not None:
                self._options.notices.finish_at_exit()

    def _ensure_loop(self) -> Loop:
        if self._loop is not None:
            return self._loop
        loop = Loop(self._options, self._outage, self._requests, self._watch)
        if self._loop is not None:
            # The garbage collector has caused another call of this method in between.
            loop.close()
            return self._loop
        self._loop = loop
        try:
            greenlets.start_thread(partial(loop.run, self._retire), "flask-sse-hub")
        except RuntimeError:
            self._loop = None
            loop.close()
            raise
        return loop

    def _retire(self) -> bool:
        """Let the loop end, unless there are new requests."""
        with self._lock:
            if self._requests:
                return False
            self._loop = None
        return True
