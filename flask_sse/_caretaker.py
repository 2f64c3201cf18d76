"""Looks after the open streams of a process in between events.

`admit` and `dismiss` may be called from any thread and do not block. The rest is done by
one thread (a greenlet where gevent has patched), which there is as long as there are
streams. `keep_alive` is for streams that gevent's greenlets serve, which take turns
with that one.
"""

import contextlib
import logging
import select
import selectors
import socket
import threading
import time
from collections import defaultdict
from typing import Final, Protocol

from flask_sse import _gunicorn, _sockets

_log: Final = logging.getLogger("flask_sse")

_TICK: Final = 0.5
_GRACE: Final = 1.0
_YIELD_AFTER: Final = 256


class Stream(Protocol):
    """A stream as the caretaker knows it. None of its methods blocks."""

    connection: socket.socket

    def end(self) -> None:
        """Have the stream's own thread end it."""

    def send_comment(self, now: float) -> float | None:
        """Send a comment, if there was silence for long enough.

        :return: when to call again, on the monotonic clock; `None` for never.
        """


class Caretaker:
    """Notices clients that have gone, and keeps the connections of the others alive.

    :param keepalive: Seconds of silence after which a comment is sent, or `None`.
    """

    def __init__(self, keepalive: float | None) -> None:
        self._keepalive = keepalive
        self._tick = min(_TICK, (keepalive or _TICK) / 2)
        # Held while an event of epoll is looked at: who is dismissed meanwhile must not
        # give its descriptor back, lest the next client be taken for the one that went.
        self._lock = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._due: defaultdict[int, list[Stream]] = defaultdict(list)
        self._epoll: select.epoll | None = None
        self._running = False

    def admit(self, stream: Stream) -> None:
        """Look after a stream from now on."""
        descriptor = stream.connection.fileno()
        with self._lock:
            if not self._running:
                self._start()
            if self._epoll is not None:
                self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)
            self._streams[descriptor] = stream

    def keep_alive(self, stream: Stream) -> None:
        """Have a stream send its comments from now on."""
        if self._keepalive is not None:
            self._schedule(stream, time.monotonic() + self._keepalive / 2)

    def dismiss(self, stream: Stream) -> None:
        """Look after it no more; its socket may be closed when this returns."""
        descriptor = stream.connection.fileno()
        with self._lock:
            if self._streams.get(descriptor) is not stream:
                return
            del self._streams[descriptor]
            if self._epoll is not None:
                with contextlib.suppress(OSError):
                    self._epoll.unregister(descriptor)

    def _start(self) -> None:
        epoll = _sockets.new_epoll()
        selector = selectors.DefaultSelector()
        if epoll is not None:
            selector.register(epoll, selectors.EVENT_READ)
        thread = threading.Thread(
            target=self._run, args=[epoll, selector], name="flask-sse-care", daemon=True
        )
        # Told first, as the thread may be done before `start` returns; and taken back.
        self._epoll, self._running = epoll, True
        try:
            thread.start()
        except RuntimeError:
            self._epoll, self._running = None, False
            raise

    def _run(self, epoll: "select.epoll | None", selector: selectors.BaseSelector) -> None:
        # The selector is closed first: it must not know of a descriptor that is closed.
        with epoll or contextlib.nullcontext(), selector:
            try:
                self._look_after(selector)
            except Exception:  # noqa: BLE001 - the next stream must find somebody who looks after it
                _log.exception("the caretaker of the streams has failed")
                with self._lock:
                    self._running = False

    def _look_after(self, selector: selectors.BaseSelector) -> None:
        stopped_at: float | None = None
        while not self._retire():
            selector.select(self._tick)
            now = time.monotonic()
            self._end_gone()
            self._send_comments(now)
            if stopped_at is None and _gunicorn.is_stopping():
                stopped_at = now
                self._end_all()
            if stopped_at is not None and now - stopped_at > _GRACE:
                self._hang_up()

    def _retire(self) -> bool:
        with self._lock:
            if self._streams:
                return False
            self._running = False
            self._epoll = None
            self._due.clear()
        return True

    def _end_gone(self) -> None:
        """End the streams whose client has closed its side."""
        if self._epoll is None:
            return
        with self._lock:
            for descriptor, events in self._epoll.poll(0):
                stream = self._streams.get(descriptor)
                if stream is None:
                    continue
                if events & select.EPOLLERR:
                    _sockets.hang_up(stream.connection)
                stream.end()

    def _send_comments(self, now: float) -> None:
        asked = 0
        for slot in [slot for slot in self._due if slot <= self._slot(now)]:
            for stream in self._due.pop(slot):
                due = stream.send_comment(now)
                if due is not None:
                    self._schedule(stream, due)
                asked += 1
                if asked % _YIELD_AFTER == 0:
                    time.sleep(0)

    def _schedule(self, stream: Stream, due: float) -> None:
        self._due[self._slot(due)].append(stream)

    def _slot(self, due: float) -> int:
        return int(due / self._tick)

    def _end_all(self) -> None:
        with self._lock:
            for stream in self._streams.values():
                stream.end()

    def _hang_up(self) -> None:
        """Let go who would hold up the server's stop by not reading."""
        with self._lock:
            for stream in self._streams.values():
                _sockets.hang_up(stream.connection)
