"""A stream whose events come from an application's own generator of messages.

The generator runs in a thread (a greenlet if gevent has patched), since it may wait as long
as it likes, while the server must send comments. Everything else belongs to the thread in
which the server serves the client.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, NoReturn

import redis

from flask_sse._callbacks import on_close
from flask_sse._callbacks.stream_signals import AGE, CLIENT, END, ERROR, FULL, REDIS, STOP, Visit
from flask_sse._event.message import COMMENT, Message
from flask_sse._hub.service import CONFIRM_WITHIN
from flask_sse._hub.subscriber import Subscriber
from flask_sse._streaming import early, worker
from flask_sse._streaming.admission import UNLIMITED, Admission
from flask_sse._streaming.contexts import Contexts
from flask_sse._streaming.event_stream import Streams
from flask_sse._streaming.limit import Place
from flask_sse._streaming.messages import observer
from flask_sse._streaming.servers import ServerFacts
from flask_sse._system.clock import monotonic

_log: Final = logging.getLogger("flask_sse")

_CLOSE_WITHIN: Final = 1.0
"""Seconds that the end of a stream waits for the end of its generator."""


class GeneratedStream:
    """The pieces of a stream of messages.

    :param generate: Returns the messages. It is called in the other thread, in the contexts of
        the request that makes this object. They are torn down when the stream has ended.
    :param facts: What the request reveals about its server.
    :param visit: Sends the signals of this stream, if they have receivers.
    :param admission: Says how long the stream may last.
    """

    def __init__(
        self,
        generate: Callable[[], Iterable[Message]],
        streams: Streams,
        facts: ServerFacts,
        visit: Visit | None = None,
        *,
        admission: Admission = UNLIMITED,
    ) -> None:
        self._generate = generate
        self._contexts = Contexts()
        self._thread: threading.Thread | None = None
        self._streams = streams
        self._facts = facts
        self._visit = visit
        self._admission = admission
        self._end_by: float | None = None
        self._close_callbacks: list[on_close.Callback] = []
        self._subscribers: list[Subscriber] = []
        self._place: Place | None = None
        # Guards all attributes below.
        self._changed = threading.Condition()
        self._frames = b""
        self._farewell = b""
        self._is_open = False
        self._failure: str | None = None
        self._error: Exception | None = None
        self._has_failed = False
        self._has_left = False
        self._is_old = False
        self._has_ended = False
        self._is_closed = False

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        """Register a function to call once, when the stream has ended."""
        self._close_callbacks.append(func)
        return func

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, and a comment after each period of silence.

        :raises RuntimeError: if the application reads them before they are sent.
        :raises Exception: from the first step, if the generator raises it.
        """
        try:
            early.check_reader(self._facts.environ_id)
        except RuntimeError:
            self.close()
            raise
        self._place = self._streams.places.take()
        if self._place is None:
            self._leave(FULL)
            yield self._streams.rejection()
            return
        self._end_by = self._admission.end_by(monotonic())
        try:
            run = partial(self._contexts.run, self._run)
            thread = threading.Thread(target=run, name="flask-sse-messages", daemon=True)
            thread.start()
            self._thread = thread
            self._streams.readers.enter(self, self._note_left)
            yield from self._pieces()
        finally:
            self.close()

    def close(self) -> None:
        """End the stream. The server always calls this, however the response ends."""
        reason = self._reason()
        self._leave(reason)
        self._streams.readers.leave(self)
        self._end()
        if self._place is not None:
            self._place.release()
        thread, self._thread = self._thread, None
        if thread is not None:
            # The generator may need what the teardown functions close.
            thread.join(_CLOSE_WITHIN)
        self._report()
        # A server that has lost its client closes the generator in the same way.
        left = GeneratorExit() if reason == CLIENT and thread is not None else None
        error, self._error = self._error or left, None
        try:
            self._contexts.release(error)
        finally:
            callbacks, self._close_callbacks = self._close_callbacks, []
            on_close.run(callbacks)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled.

        :raises TypeError: always.
        """
        early.refuse_pickling()

    def began(self, subscriber: Subscriber) -> None:
        """Note a subscription of the generator, to end it with the stream."""
        with self._changed:
            self._subscribers.append(subscriber)
            self._farewell = b""
            if self._is_closed:
                subscriber.end()

    def confirmed(self) -> None:
        """Note that Redis has confirmed that subscription."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def ended(self, frame: bytes) -> None:
        """Note the event with which the stream ends, if the generator ends now, too."""
        with self._changed:
            self._farewell = frame

    def _pieces(self) -> Iterator[bytes]:
        with self._changed:
            # A generator that does not use our subscription gets no confirmation.
            self._changed.wait_for(
                lambda: self._is_open or self._frames or self._has_ended or self._is_closed,
                CONFIRM_WITHIN,
            )
            if self._failure == ERROR and not self._frames:
                assert self._error is not None
                self._has_failed = False
                # Nothing has been sent, so the server logs this and answers with an error. A
                # browser would reconnect to a stream again and again.
                raise self._error
            rejected = self._failure is not None and not self._is_open and not self._frames
        opening = self._streams.rejection() if rejected else self._streams.terms.opening
        if self._visit is not None and not rejected:
            self._visit.opened()
            self._visit.count(0, len(opening))
        yield opening
        while (frames := self._next()) is not None:
            yield frames

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._frames or self._has_ended or self._is_closed, self._longest_wait()
            )
            frames, self._frames = self._frames, b""
            self._changed.notify_all()
            if self._is_closed or (self._has_ended and not frames):
                return None
            if self._end_by is not None and monotonic() >= self._end_by:
                # What waits is sent, and nothing after it.
                self._is_old = self._is_closed = True
                if not frames:
                    return None
        if self._visit is not None:
            is_message = bool(frames) and frames is not self._farewell
            self._visit.count(int(is_message), len(frames or COMMENT))
        return frames or COMMENT

    def _longest_wait(self) -> float | None:
        """Return how many seconds to wait for the next message."""
        silence = self._facts.silence(self._streams.settings.keepalive)
        if self._end_by is None:
            return silence
        left = max(self._end_by - monotonic(), 0.0)
        return left if silence is None else min(silence, left)

    def _reason(self) -> str:
        with self._changed:
            if self._failure is not None:
                return self._failure
            if self._is_old:
                return AGE
            has_ended = self._has_ended and not self._has_left
        if worker.is_stopping():
            return STOP
        return END if has_ended else CLIENT

    def _leave(self, reason: str) -> None:
        visit, self._visit = self._visit, None
        if visit is not None:
            visit.ended(reason)

    def _note_left(self) -> None:
        """End the stream, whose client has gone or has received all of it."""
        with self._changed:
            self._has_left = not self._has_ended
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for subscriber in self._subscribers:
                subscriber.end()

    def _report(self) -> None:
        """Log the generator's failure, unless the server has logged it."""
        with self._changed:
            failed, self._has_failed = self._has_failed, False
        if failed:
            _log.error("an overridden messages() has failed", exc_info=self._error)

    def _run(self) -> None:
        token = observer.set(self)
        try:
            self._hand_on_messages()
            if self._farewell:
                self._hand_on(self._farewell)
        except redis.RedisError as error:
            self._failure, self._error = REDIS, error
            _log.warning("a stream of an overridden messages() has ended: %s", error)
        except Exception as error:  # noqa: BLE001 - the generator is the application's
            self._failure, self._error, self._has_failed = ERROR, error, True
        finally:
            observer.reset(token)
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()
                is_late = self._is_closed
            if is_late:
                self._report()

    def _hand_on_messages(self) -> None:
        messages = self._generate()
        try:
            for message in messages:
                # As in 1.0, a message only needs `str()`.
                if not self._hand_on(str(message).encode()):
                    return
        finally:
            close = getattr(messages, "close", None)
            if close is not None:
                close()

    def _hand_on(self, frames: bytes) -> bool:
        """Wait until the server has taken the frames before; return `False` at the end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._frames or self._is_closed)
            if self._is_closed:
                return False
            self._frames = frames
            self._changed.notify_all()
            return True
