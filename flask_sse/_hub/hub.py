"""The one subscription of a process to a Redis, for all listeners.

All methods can be called from any thread, and only `stop` and `rest` block. The others leave
a request for the hub's owner, which starts with the first request and ends when there has
been nothing to do for a while.
"""

import atexit
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from flask.json.provider import JSONProvider

from flask_sse import _gevent
from flask_sse._connection import Connection
from flask_sse._logs import History
from flask_sse._notices import Notices
from flask_sse._outage import Outage
from flask_sse._owner import Options, Owner, Request
from flask_sse._pubsub import PubSubConnection
from flask_sse._subscriber import Subscriber
from flask_sse._watch import Watch

_STOP_WITHIN: Final = 1.5


class Hub:
    """Delivers each event of a channel to all listeners that have joined the channel.

    :param connect: Makes a connection to Redis; it may block, and may raise any exception.
    :param provider: The application's JSON provider.
    :param keepalive: A client is sent a comment within this many seconds of silence.
    :param linger: Seconds for which an unused connection to Redis is kept.
    :param history: Which channels have a log, and how to read it.
    :param notices: Sends the signals, if they have receivers.
    """

    def __init__(
        self,
        connect: Callable[[], PubSubConnection],
        provider: JSONProvider,
        *,
        keepalive: float | None = None,
        linger: float = 2.0,
        history: History | None = None,
        notices: Notices | None = None,
    ) -> None:
        self._options = Options(connect, provider, keepalive, linger, history, notices)
        self._outage = Outage(notices)
        self._requests: deque[Request] = deque()
        self._watch = Watch()
        # Only for the owner's start and end. It is reentrant: while it is held, the
        # garbage collector may close a generator of messages, which leaves the hub.
        self._lock = threading.RLock()
        self._owner: Owner | None = None
        self._stops_at_exit = False

    def join(
        self, channel: bytes, subscriber: Subscriber, client: socket.socket | None = None
    ) -> None:
        """Subscribe to *channel*; the subscriber is told when Redis has confirmed it.

        :param client: The socket of the subscriber's client; the subscription ends when the
            client closes its side.
        """
        if client is not None:
            self._watch.add(client, subscriber)
        self._leave_request(Request(channel, subscriber, joins=True))

    def leave(
        self, channel: bytes, subscriber: Subscriber, client: socket.socket | None = None
    ) -> None:
        """End a subscription, if it still exists.

        :param client: The client that was passed to :meth:`join`. Its socket may be closed when
            this returns.
        """
        if client is not None:
            self._watch.discard(client, subscriber)
        self._leave_request(Request(channel, subscriber, joins=False))

    def adopt(self, channel: bytes, take: Callable[[], Connection]) -> None:
        """Serve a client's connection from now on.

        :param take: Takes the connection. It is called after every step that can fail.
        """
        with self._lock:
            owner = self._ensure_owner()
            if not self._stops_at_exit:
                self._stops_at_exit = True
                # A stopping server does not know about these streams and does not wait for them.
                atexit.register(self._stop_at_exit, os.getpid())
            self._requests.append(Request(channel, take(), joins=True))
            owner.waker.set()

    def stop(self) -> None:
        """End all streams and wait until they have ended; clients that hang are disconnected."""
        with self._lock:
            owner = self._owner
            if owner is None:
                return
            owner.stop_requested = True
            owner.waker.set()
        deadline = time.monotonic() + _STOP_WITHIN
        while (left := deadline - time.monotonic()) > 0 and not owner.has_stopped.is_set():
            # gunicorn's gevent worker may get a signal to quit while it is already ending.
            with suppress(SystemExit):
                owner.has_stopped.wait(left)

    def rest(self, seconds: float) -> None:
        """Make the owner end now, not after a while, unless there are listeners; wait for it.

        :param seconds: How long to wait at most.
        """
        with self._lock:
            owner = self._owner
            if owner is None:
                return
            owner.has_rested.clear()
            owner.rest_requested = True
            owner.waker.set()
        owner.has_rested.wait(seconds)
        if self._owner is not owner and type(owner.thread) is threading.Thread:
            owner.thread.join(seconds)

    def wake(self) -> None:
        """Make the owner look for events now, although nothing has signaled that there are any."""
        owner = self._owner
        if owner is not None:
            owner.waker.set()

    def _stop_at_exit(self, pid: int) -> None:
        if os.getpid() == pid:
            self.stop()
            if self._options.notices is not None:
                self._options.notices.finish_at_exit()

    def _leave_request(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)
            self._ensure_owner().waker.set()

    def _ensure_owner(self) -> Owner:
        if self._owner is not None:
            return self._owner
        owner = Owner(self._options, self._outage, self._requests, self._watch)
        if self._owner is not None:
            # The garbage collector has caused another call of this method in between.
            owner.close()
            return self._owner
        self._owner = owner
        try:
            _gevent.start_thread(partial(owner.run, self._retire), "flask-sse-hub")
        except RuntimeError:
            self._owner = None
            owner.close()
            raise
        return owner

    def _retire(self) -> bool:
        """Let the owner end, unless there are new requests."""
        with self._lock:
            if self._requests:
                return False
            self._owner = None
        return True
