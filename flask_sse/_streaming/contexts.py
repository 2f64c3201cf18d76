"""Keeps the contexts of a request until its stream has ended.

The view makes a :class:`Contexts`. The generator's thread calls `run`, and the thread in which
the server serves the client calls `release`. Only teardown functions may block.
"""

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token, copy_context
from typing import Any, Final, Optional, TypeAlias

from flask import appcontext_tearing_down, current_app, stream_with_context

_Place: TypeAlias = Optional["weakref.ref[Contexts]"]

_top: Final[ContextVar[_Place]] = ContextVar("flask_sse_top", default=None)
"""The contexts that were pushed last in this thread, or wherever context variables are kept."""


class Contexts:
    """The contexts of the current request, which Flask tears down after :meth:`release`.

    Flask tears them down when they have been popped as often as pushed. So they are pushed once
    more here, and popped when the stream has ended.
    """

    def __init__(self) -> None:
        self._app = current_app.app_context().app
        self._pushed: Iterator[bytes] | None = None
        self._error: BaseException | None = None
        self._is_released = False
        self._below: Contexts | None = None
        self._token: Token[_Place] | None = None
        if _is_asynchronous():
            self._is_released = True
        else:
            # Some versions of Flask push here, and some at the first `next()`.
            self._pushed = stream_with_context(iter((b"",)))
            next(self._pushed)
            below = _top.get()
            self._below = None if below is None else below()
            self._token = _top.set(weakref.ref(self))
        self._context = copy_context()

    def run(self, function: Callable[[], None]) -> None:
        """Call a function in these contexts; they are neither pushed nor popped for it."""
        self._context.run(function)

    def release(self, error: BaseException | None) -> None:
        """Let Flask tear the contexts down, if this has not been called before.

        :param error: The exception that the teardown functions are given.
        :raises Exception: if a teardown function raises it.
        """
        if self._is_released:
            return
        self._is_released = True
        self._error = error
        if not self._is_here():
            self._context.copy().run(self._tear_down_elsewhere)
            return
        # In tests, several streams may be open in one thread. The last one must end first.
        top = _top.get()
        contexts = None if top is None else top()
        while contexts is not None and contexts._is_released and contexts._is_here():
            below, contexts._below = contexts._below, None
            assert contexts._token is not None
            _top.reset(contexts._token)
            contexts._pop()
            contexts = below

    def __del__(self) -> None:
        """Release the contexts if the application has replaced the response."""
        with contextlib.suppress(Exception):
            self.release(None)

    def _is_here(self) -> bool:
        """Whether the contexts were pushed where this is called."""
        top = _top.get()
        assert self._token is not None
        try:
            # Only where it was made can a token be used.
            _top.reset(self._token)
        except ValueError:
            return False
        self._token = _top.set(top)
        return True

    def _pop(self) -> None:
        pushed: Any = self._pushed
        error, self._error = self._error, None
        if error is None:
            next(pushed, None)
            return
        try:
            pushed.throw(error)
        except BaseException as raised:
            if raised is not error:
                raise

    def _tear_down_elsewhere(self) -> None:
        """Call the teardown functions in another thread than the view's."""
        error = self._error
        torn_down: set[int] = set()

        def note(_: object, **rest: object) -> None:
            del rest
            torn_down.add(threading.get_ident())

        # In the middle of its work, Flask notices that its variables were set elsewhere.
        with (
            appcontext_tearing_down.connected_to(note, self._app),
            contextlib.suppress(ValueError),
        ):
            self._pop()
        if threading.get_ident() not in torn_down:
            self._app.do_teardown_appcontext(error)


def _is_asynchronous() -> bool:
    """Whether the view is asynchronous: what it pushes can't be popped by Flask itself."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
