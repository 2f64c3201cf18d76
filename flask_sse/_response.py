"""The body of a stream's response: handed over to the hub, or read by the server.

A body belongs to the one thread or greenlet in which the server serves its client.
"""

import errno
import io
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from flask_sse import _callbacks, _server, _sockets
from flask_sse._connection import Connection, Terms
from flask_sse._handover import Handover, find_handover
from flask_sse._history import Position
from flask_sse._hub import Hub
from flask_sse._message import COMMENT
from flask_sse._owner import CONFIRM_WITHIN
from flask_sse._places import Places
from flask_sse._settings import Settings
from flask_sse._subscriber import Follower, Subscriber
from flask_sse._visit import CLIENT, ERROR, FULL, OVERFLOW, REDIS, STOP, Visit

_log: Final = logging.getLogger("flask_sse")

_RETRY: Final = 3_000


class Streams:
    """What the streams of an application have in common."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.places = Places.of(settings.max_clients)
        retry = settings.retry
        self.terms = Terms(
            COMMENT if retry is None else _retry(retry),
            self.rejection,
            settings.max_pending,
            self._ended,
        )
        self.terms_of_rejection = self.terms._replace(ended=_run_in_background)
        self._warned = False

    def rejection(self) -> bytes:
        """Return what a client is told that gets no stream.

        A browser gives up for good after a 5xx, but comes back after a stream that has ended
        (WHATWG specification, section 9.2.3); not all clients at the same time.
        """
        usual = self.settings.retry or _RETRY
        return _retry(random.randint(usual, 2 * usual))

    def warn_of_blocking(self) -> None:
        """Say once that a stream blocks the whole server."""
        if not self._warned:
            self._warned = True
            _log.warning(
                "this server handles one request at a time, so an open event stream blocks all "
                "other requests; use gunicorn, or a server with threads"
            )

    def _ended(self, callbacks: Sequence[_callbacks.Callback]) -> None:
        self.places.exit()
        _run_in_background(callbacks)


class EventStream:
    """The file from which the server reads what it sends to one client.

    It subscribes when it is first read and not before, so that a body which the
    server never asks for leaves nothing behind. Where the server is gunicorn and holds
    this very body, the first `read` takes the client's connection over: the server finds
    that the client has gone, and the hub serves it.

    :param environ: The request's.
    :param is_logged: Whether the channel has history.
    :param cursor: The position in its log that the client has named.
    :param visit: Whom to tell of the stream's beginning and end, if anybody wants to know.
    """

    __slots__ = (
        "_asgi_input",
        "_blocks",
        "_channel",
        "_client",
        "_close_callbacks",
        "_cursor",
        "_ended",
        "_entered",
        "_handover",
        "_hub",
        "_is_logged",
        "_is_uwsgis",
        "_patience",
        "_streams",
        "_subscriber",
        "_visit",
    )

    def __init__(
        self,
        hub: Hub,
        channel: bytes,
        streams: Streams,
        environ: Mapping[str, Any],
        *,
        is_logged: bool = False,
        cursor: Position | None = None,
        visit: Visit | None = None,
    ) -> None:
        self._hub = hub
        self._channel = channel
        self._streams = streams
        self._is_logged = is_logged
        self._cursor = cursor
        self._visit = visit
        self._client = _server.client_socket(environ)
        self._asgi_input = _server.asgi_input(environ)
        self._is_uwsgis = _server.is_uwsgis(environ)
        self._patience = _server.patience(environ)
        self._blocks = _server.serves_one_request_at_a_time(environ)
        self._close_callbacks: list[_callbacks.Callback] = []
        self._handover: Handover | None = None
        self._subscriber: Subscriber | None = None
        self._entered = False
        self._ended = False

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        """Have a function called once, when the stream has ended, however it has ended.

        It stands in for the response's own method, which knows nothing of a hand-over.
        """
        self._close_callbacks.append(func)
        _callbacks.await_at_exit()
        return func

    def fileno(self) -> int:
        """Refuse; but where gunicorn asks, note that its connection can be taken over.

        :raises io.UnsupportedOperation: always, so that the server calls `read`.
        """
        if self._client is not None and self._streams.settings.direct:
            self._handover = find_handover(self, self._client)
        raise io.UnsupportedOperation("an event stream has no descriptor")

    def read(self, size: int = -1) -> bytes:
        """Wait for what comes next and return all of it.

        :param size: Ignored, since frames are returned whole.
        :return: frames, a comment after a while of silence, or nothing at the end.
        :raises BrokenPipeError: if the connection has been taken over, so that the server
            does what it does for a client that has gone: nothing.
        """
        if self._ended:
            return b""
        subscriber = self._subscriber
        if subscriber is None:
            return self._open_or_close()
        if self._blocks:
            self._streams.warn_of_blocking()
        keepalive = self._streams.settings.keepalive
        batches = subscriber.take(self._patience() if self._patience else keepalive)
        if batches is None:
            self.close()
            return b""
        frames = b"".join([batch.frames for batch in batches]) or COMMENT
        if self._visit is not None:
            self._visit.count(sum(len(batch.payloads) for batch in batches), len(frames))
        return frames

    def close(self) -> None:
        """Unsubscribe. The server calls this however the response has ended."""
        self._ended = True
        subscriber, self._subscriber = self._subscriber, None
        try:
            if subscriber is not None:
                self._leave(_reason(subscriber))
                subscriber.end()
                self._hub.leave(self._channel, subscriber, self._client)
                if self._client is not None and _server.is_stopping():
                    _sockets.stop_reading(self._client)
        finally:
            if self._client is not None:
                _server.release(self._client)
            if self._entered:
                self._entered = False
                self._streams.places.exit()
            callbacks, self._close_callbacks = self._close_callbacks, []
            _callbacks.run(callbacks)

    def _open_or_close(self) -> bytes:
        try:
            return self._open()
        except BrokenPipeError:
            raise
        except BaseException:
            # Of descriptors or threads there may be none left; of places there must be.
            self._leave(ERROR)
            self.close()
            raise

    def _open(self) -> bytes:
        self._entered = self._streams.places.enter()
        if self._handover is not None:
            if self._hand_over(self._handover):
                raise BrokenPipeError(errno.EPIPE, "the stream continues without the server")
            self._leave(ERROR)
            self.close()
            return self._reject()
        if not self._entered:
            self._leave(FULL)
            return self._reject()
        limit = self._streams.settings.max_pending
        subscriber = Follower(limit, self._cursor) if self._is_logged else Subscriber(limit)
        self._subscriber = subscriber
        if self._is_uwsgis:
            self._client = _server.uwsgi_socket()
        if self._client is not None:
            _sockets.bound_costs(self._client)
        self._hub.join(self._channel, subscriber, self._client)
        if self._asgi_input is not None:
            _server.call_when_gone(self._asgi_input, subscriber.end)
        if not subscriber.wait_confirmed(CONFIRM_WITHIN):
            if not subscriber.has_ended():
                subscriber.reason = REDIS
            self.close()
            return self._reject()
        opening = self._streams.terms.opening
        if self._visit is not None:
            self._visit.opened()
            self._visit.count(0, len(opening))
        return opening

    def _hand_over(self, handover: Handover) -> bool:
        """Have the hub serve the client; `False` if there is no descriptor left for that."""
        assert self._client is not None
        _sockets.bound_costs(self._client)
        streams, callbacks, entered = self._streams, self._close_callbacks, self._entered
        cursor, visit = self._cursor, self._visit

        def take() -> Connection:
            descriptor, head = handover.take()
            return Connection(
                descriptor,
                head,
                streams.terms if entered else streams.terms_of_rejection,
                chunked=handover.chunked,
                callbacks=callbacks,
                cursor=cursor,
                visit=visit,
            )

        try:
            if entered:
                self._hub.adopt(self._channel, take)
            else:
                # The server would wait for the client to close, for a round trip or for two
                # seconds, and gunicorn's default worker would do nothing else meanwhile.
                connection = take()
                connection.reason = FULL
                connection.reject()
                connection.close()
        except OSError:
            return False
        # From here on nothing is this body's any more.
        self._ended = True
        self._entered = False
        self._close_callbacks = []
        self._handover = self._client = self._visit = None
        return True

    def _leave(self, reason: str) -> None:
        visit, self._visit = self._visit, None
        if visit is not None:
            visit.ended(reason)

    def _reject(self) -> bytes:
        self._ended = True
        return self._streams.rejection()


def _reason(subscriber: Subscriber) -> str:
    if subscriber.overflowed:
        return OVERFLOW
    return STOP if subscriber.reason == CLIENT and _server.is_stopping() else subscriber.reason


def _run_in_background(callbacks: Sequence[_callbacks.Callback]) -> None:
    if callbacks:
        _callbacks.run_in_background(callbacks)


def _retry(milliseconds: int) -> bytes:
    # As after a comment, a blank line would make some clients raise an empty event.
    return b"retry:%d\n" % milliseconds
