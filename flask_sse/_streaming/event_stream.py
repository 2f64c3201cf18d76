"""The body of a stream's response: handed over to the hub, or read by the server.

Only the thread or greenlet in which the server serves the client uses a body.
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
    """The state that the streams of an application share."""

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
        """Return the frames for a client that gets no stream.

        A browser gives up for good after a 5xx, but reconnects after a stream that has ended
        (WHATWG specification, section 9.2.3). The time is random, so that clients don't all
        reconnect together.
        """
        usual = self.settings.retry or _RETRY
        return _retry(random.randint(usual, 2 * usual))

    def warn_of_blocking(self) -> None:
        """Log once that a stream blocks the whole server."""
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
    """The file from which the server reads the data for one client.

    It subscribes only when it is first read, so that a body that the server never reads
    leaves nothing behind. If the server is gunicorn and holds this very body, the first
    `read` takes the client's connection over: to the server, the client seems to have gone,
    and the hub serves it.

    :param environ: The WSGI environ of the request.
    :param is_logged: Whether the channel has history.
    :param cursor: The position in the channel's log that the client sent.
    :param visit: Sends the signals of this stream, if they have receivers.
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
        """Register a function to call once, when the stream has ended, however it ends.

        It replaces the response's own method, which does not know about a hand-over.
        """
        self._close_callbacks.append(func)
        _callbacks.await_at_exit()
        return func

    def fileno(self) -> int:
        """Raise an error; if gunicorn calls this, note that its connection can be taken over.

        :raises io.UnsupportedOperation: always, so that the server calls `read`.
        """
        if self._client is not None and self._streams.settings.direct:
            self._handover = find_handover(self, self._client)
        raise io.UnsupportedOperation("an event stream has no descriptor")

    def read(self, size: int = -1) -> bytes:
        """Wait for data and return all of it.

        :param size: Ignored, since frames are returned whole.
        :return: frames, a comment after a period of silence, or nothing at the end.
        :raises BrokenPipeError: if the connection has been taken over, so that the server
            treats the client as gone, and does nothing more.
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
        """Unsubscribe. The server always calls this, however the response ends."""
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
            # There may be no descriptors or threads left, but the place must be freed.
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
        """Let the hub serve the client; return `False` if there is no descriptor left for it."""
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
                # seconds, and gunicorn's default worker would do nothing else in that time.
                connection = take()
                connection.reason = FULL
                connection.reject()
                connection.close()
        except OSError:
            return False
        # From here on, this body no longer owns anything.
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
    # As after a comment, a blank line would make some clients dispatch an empty event.
    return b"retry:%d\n" % milliseconds
