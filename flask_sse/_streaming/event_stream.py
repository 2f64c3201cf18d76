"""The body of a stream's response: handed over to the hub, or read by the server.

Only the thread or greenlet in which the server serves the client uses a body.
"""

import errno
import io
import logging
import random
import socket
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, NoReturn

from flask_sse._callbacks import on_close
from flask_sse._callbacks.stream_signals import CLIENT, ERROR, FULL, OVERFLOW, REDIS, STOP, Visit
from flask_sse._event.message import COMMENT
from flask_sse._hub.connection import Connection, Terms
from flask_sse._hub.hub import Hub
from flask_sse._hub.service import CONFIRM_WITHIN
from flask_sse._hub.subscriber import Subscriber
from flask_sse._settings import Settings
from flask_sse._streaming import early, servers, worker
from flask_sse._streaming.admission import UNLIMITED, Admission
from flask_sse._streaming.feed import Feed
from flask_sse._streaming.gunicorn import Handover, find_handover
from flask_sse._streaming.limit import Place, Places
from flask_sse._streaming.readers import Readers
from flask_sse._streaming.servers import ServerFacts
from flask_sse._system import sockets
from flask_sse._system.clock import monotonic

_log: Final = logging.getLogger("flask_sse")

_RETRY: Final = 3_000


class Streams:
    """The state that the streams of an application share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.places = Places.of(settings.max_clients)
        self.readers = Readers()
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

    def _ended(self, callbacks: Sequence[on_close.Callback]) -> None:
        self.places.free()
        _run_in_background(callbacks)


class Phase(Enum):
    """How far a stream has come."""

    NEW = "new"
    """The server has not read anything yet."""
    OPEN = "open"
    """The server reads it."""
    HANDED_OVER = "handed over"
    """The hub serves its client."""
    REJECTED = "rejected"
    """Its client has been told to reconnect later."""
    ENDED = "ended"


class EventStream:
    """The file from which the server reads the data for one client.

    It subscribes only when it is first read, so that a body that the server never reads
    leaves nothing behind. If the server is gunicorn and holds this very body, the first
    `read` takes the client's connection over: to the server, the client seems to have gone,
    and the hub serves it.

    :param feed: What the client asks for.
    :param facts: What the request reveals about its server.
    :param visit: Sends the signals of this stream, if they have receivers.
    :param admission: Says whose stream it is, and how long it may last.
    """

    __slots__ = (
        "_admission",
        "_client",
        "_close_callbacks",
        "_facts",
        "_feed",
        "_handover",
        "_hub",
        "_phase",
        "_place",
        "_streams",
        "_subscriber",
        "_visit",
    )

    def __init__(
        self,
        hub: Hub,
        feed: Feed,
        streams: Streams,
        facts: ServerFacts,
        visit: Visit | None = None,
        *,
        admission: Admission = UNLIMITED,
    ) -> None:
        self._hub = hub
        self._feed = feed
        self._streams = streams
        self._facts = facts
        self._visit = visit
        self._admission = admission
        self._phase = Phase.NEW
        self._close_callbacks: list[on_close.Callback] = []
        self._handover: Handover | None = None
        self._place: Place | None = None
        self._subscriber: Subscriber | None = None
        self._client: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<EventStream {self._phase.value}>"

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        """Register a function to call once, when the stream has ended, however it ends.

        It replaces the response's own method, which does not know about a hand-over.
        """
        self._close_callbacks.append(func)
        on_close.await_at_exit()
        return func

    def fileno(self) -> int:
        """Raise an error; if gunicorn calls this, note that its connection can be taken over.

        :raises io.UnsupportedOperation: always, so that the server calls `read`.
        """
        client = self._facts.client
        if client is not None and self._streams.settings.direct:
            self._handover = find_handover(self, client)
        raise io.UnsupportedOperation("an event stream has no descriptor")

    def read(self, size: int = -1) -> bytes:
        """Wait for data and return all of it.

        :param size: Ignored, since frames are returned whole.
        :return: frames, a comment after a period of silence, or nothing at the end.
        :raises BrokenPipeError: if the connection has been taken over, so that the server
            treats the client as gone, and does nothing more.
        :raises RuntimeError: if the application reads it before it is sent.
        """
        if self._phase is Phase.OPEN:
            return self._read_next()
        if self._phase is not Phase.NEW:
            return b""
        early.check_reader(self._facts.environ_id)
        return self._open_or_close()

    def close(self) -> None:
        """Unsubscribe. The server always calls this, however the response ends."""
        self._phase = Phase.ENDED
        self._streams.readers.leave(self)
        subscriber, self._subscriber = self._subscriber, None
        try:
            if subscriber is not None:
                self._leave(_reason(subscriber))
                subscriber.end()
                self._hub.leave(subscriber, self._client)
                if self._client is not None and worker.is_stopping():
                    sockets.stop_reading(self._client)
        finally:
            if self._client is not None:
                servers.release(self._client)
            if self._place is not None:
                self._place.release()
            callbacks, self._close_callbacks = self._close_callbacks, []
            on_close.run(callbacks)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled.

        :raises TypeError: always.
        """
        early.refuse_pickling()

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
        self._place = self._streams.places.take()
        if self._handover is not None:
            if self._hand_over(self._handover):
                raise BrokenPipeError(errno.EPIPE, "the stream continues without the server")
            self._leave(ERROR)
            self.close()
            return self._reject()
        if self._place is None:
            self._leave(FULL)
            return self._reject()
        subscriber = self._feed.new_subscriber(self._streams.settings.max_pending)
        subscriber.end_by = self._admission.end_by(monotonic())
        subscriber.identity = self._admission.identity
        self._subscriber = subscriber
        self._client = self._facts.open_client()
        if self._client is not None:
            sockets.bound_costs(self._client)
        self._hub.join(self._feed.channel, subscriber, self._client)
        if self._facts.occupies_thread:
            self._streams.readers.enter(self, subscriber.end)
        if not subscriber.wait_confirmed(CONFIRM_WITHIN):
            if not subscriber.has_ended():
                subscriber.reason = REDIS
            self.close()
            return self._reject()
        self._phase = Phase.OPEN
        opening = self._streams.terms.opening
        if self._visit is not None:
            self._visit.opened()
            self._visit.count(0, len(opening))
        return opening

    def _read_next(self) -> bytes:
        subscriber, settings = self._subscriber, self._streams.settings
        assert subscriber is not None
        if self._facts.blocks:
            self._streams.warn_of_blocking()
        batches = subscriber.take(self._facts.silence(settings.keepalive))
        if batches is None:
            self.close()
            return b""
        frames = b"".join([batch.frames for batch in batches]) or COMMENT
        if self._visit is not None:
            self._visit.count(sum(len(batch.payloads) for batch in batches), len(frames))
        return frames

    def _hand_over(self, handover: Handover) -> bool:
        """Let the hub serve the client; return `False` if there is no descriptor left for it."""
        assert self._facts.client is not None
        sockets.bound_costs(self._facts.client)
        feed, streams, callbacks = self._feed, self._streams, self._close_callbacks
        has_place, visit = self._place is not None, self._visit
        end_by, identity = self._admission.end_by(monotonic()), self._admission.identity

        def take() -> Connection:
            descriptor, head = handover.take()
            return Connection(
                descriptor,
                head,
                streams.terms if has_place else streams.terms_of_rejection,
                chunked=handover.chunked,
                callbacks=callbacks,
                resume_after=feed.after,
                marks=feed.marks,
                end_by=end_by,
                identity=identity,
                visit=visit,
            )

        try:
            if has_place:
                self._hub.adopt(feed.channel, take)
            else:
                # The server would wait for the client to close, for a round trip or for two
                # seconds, and gunicorn's default worker would do nothing else in that time.
                connection = take()
                connection.reason = FULL
                connection.reject()
                connection.close()
        except OSError:
            return False
        # From here on, the connection owns everything, and its terms free the place.
        self._phase = Phase.HANDED_OVER
        self._close_callbacks = []
        self._handover = self._place = self._visit = None
        return True

    def _leave(self, reason: str) -> None:
        visit, self._visit = self._visit, None
        if visit is not None:
            visit.ended(reason)

    def _reject(self) -> bytes:
        self._phase = Phase.REJECTED
        return self._streams.rejection()


def _reason(subscriber: Subscriber) -> str:
    if subscriber.overflowed:
        return OVERFLOW
    return STOP if subscriber.reason == CLIENT and worker.is_stopping() else subscriber.reason


def _run_in_background(callbacks: Sequence[on_close.Callback]) -> None:
    if callbacks:
        on_close.run_in_background(callbacks)


def _retry(milliseconds: int) -> bytes:
    # As after a comment, a blank line would make some clients dispatch an empty event.
    return b"retry:%d\n" % milliseconds
