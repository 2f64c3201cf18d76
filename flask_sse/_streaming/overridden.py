"""A stream whose events come from an application's own generator of messages.

The generator runs in a thread (a greenlet if gevent has patched), since it may wait as long
as it likes, while the server must send comments. Everything else belongs to the thread in
which the server serves the client.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import redis
from flask import copy_current_request_context

from flask_sse import _callbacks, _server
from flask_sse._message import COMMENT, Message
from flask_sse._messages import observer
from flask_sse._owner import CONFIRM_WITHIN
from flask_sse._response import Streams
from flask_sse._subscriber import Subscriber
from flask_sse._visit import CLIENT, END, ERROR, FULL, REDIS, STOP, Visit

_log: Final = logging.getLogger("flask_sse")


class GeneratedStream:
    """The pieces of a stream of messages.

    :param generate: Returns the messages. It is called in the other thread, in a copy of the
        context of the request that makes this object.
    :param patience: Returns how many seconds to wait, instead of the setting.
    :param visit: Sends the signals of this stream, if they have receivers.
    """

    def __init__(
        self,
        generate: Callable[[], Iterable[Message]],
        streams: Streams,
        patience: Callable[[], float] | None = None,
        visit: Visit | None = None,
    ) -> None:
        self._generate = generate
        # In 1.0 the generator ran in the request's context, and may need it.
        self._hand_on = copy_current_request_context(self._hand_on_messages)
        self._streams = streams
        self._patience = patience
        self._visit = visit
        self._close_callbacks: list[_callbacks.Callback] = []
        self._subscribers: list[Subscriber] = []
        self._entered = False
        # Guards all attributes below.
        self._changed = threading.Condition()
        self._frames = b""
        self._is_open = False
        self._failure: str | None = None
        self._has_ended = False
        self._is_closed = False

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        """Register a function to call once, when the stream has ended."""
        self._close_callbacks.append(func)
        return func

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, and a comment after each period of silence."""
        self._entered = self._streams.places.enter()
        if not self._entered:
            self._leave(FULL)
            yield self._streams.rejection()
            return
        try:
            threading.Thread(target=self._run, name="flask-sse-messages", daemon=True).start()
            yield from self._pieces()
        finally:
            self.close()

    def close(self) -> None:
        """End the stream. The server always calls this, however the response ends."""
        self._leave(self._reason())
        self._end()
        if self._entered:
            self._entered = False
            self._streams.places.exit()
        callbacks, self._close_callbacks = self._close_callbacks, []
        _callbacks.run(callbacks)

    def began(self, subscriber: Subscriber) -> None:
        """Note a subscription of the generator, to end it with the stream."""
        with self._changed:
            self._subscribers.append(subscriber)
            if self._is_closed:
                subscriber.end()

    def confirmed(self) -> None:
        """Note that Redis has confirmed that subscription."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def _pieces(self) -> Iterator[bytes]:
        with self._changed:
            # A generator that does not use our subscription gets no confirmation.
            self._changed.wait_for(
                lambda: self._is_open or self._frames or self._has_ended, CONFIRM_WITHIN
            )
            rejected = self._failure is not None and not self._is_open and not self._frames
        opening = self._streams.rejection() if rejected else self._streams.terms.opening
        if self._visit is not None and not rejected:
            self._visit.opened()
            self._visit.count(0, len(opening))
        yield opening
        while (frames := self._next()) is not None:
            yield frames

    def _next(self) -> bytes | None:
        silence = self._patience() if self._patience else self._streams.settings.keepalive
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._has_ended, silence)
            frames, self._frames = self._frames, b""
            self._changed.notify_all()
            if not frames and self._has_ended:
                return None
        if self._visit is not None:
            self._visit.count(1 if frames else 0, len(frames or COMMENT))
        return frames or COMMENT

    def _reason(self) -> str:
        with self._changed:
            if self._failure is not None:
                return self._failure
            has_ended = self._has_ended
        if _server.is_stopping():
            return STOP
        return END if has_ended else CLIENT

    def _leave(self, reason: str) -> None:
        visit, self._visit = self._visit, None
        if visit is not None:
            visit.ended(reason)

    def _end(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for subscriber in self._subscribers:
                subscriber.end()

    def _run(self) -> None:
        token = observer.set(self)
        try:
            self._hand_on()
        except redis.RedisError as error:
            self._failure = REDIS
            _log.warning("a stream of an overridden messages() has ended: %s", error)
        except Exception:  # noqa: BLE001 - the generator is the application's
            self._failure = ERROR
            _log.exception("an overridden messages() has failed")
        finally:
            observer.reset(token)
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _hand_on_messages(self) -> None:
        messages = self._generate()
        try:
            for message in messages:
                # As in 1.0, a message only needs `str()`.
                frames = str(message).encode()
                with self._changed:
                    # The generator continues when the server has taken the frames before.
                    self._changed.wait_for(lambda: not self._frames or self._is_closed)
                    if self._is_closed:
                        return
                    self._frames = frames
                    self._changed.notify_all()
        finally:
            close = getattr(messages, "close", None)
            if close is not None:
                close()
