"""Whether this process is a worker of gunicorn or uvicorn that has been told to stop.

Neither has an interface for this, so their own object is searched for, once per process. It can
be called from any thread, and nothing blocks.
"""

import os
import signal
import sys
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from flask_sse._system.clock import monotonic

_SEARCH_AGAIN: Final = 1.0
"""Seconds after which an object that was not found is searched for again."""

_CLASSES: Final = {"gunicorn.workers.base": "Worker", "uvicorn.server": "Server"}
_MODULES: Final = ("gunicorn.workers.", "uvicorn.server")


def is_stopping() -> bool:
    """Whether the server has told this process to stop.

    A gunicorn worker clears ``alive`` first: for a signal, for ``max_requests`` and for a reload.
    Uvicorn sets ``should_exit``, and waits for the streams to end.
    """
    return _stops(_found.look_up())


def look_for_server() -> None:
    """Search for the server's object: while it serves a request, it is easiest to find."""
    _found.look_up()


class _Found:
    """The object of the server in this process, if it has been found."""

    def __init__(self) -> None:
        self._process = 0
        self._server: weakref.ref[Any] | None = None
        self._search_at = 0.0

    def look_up(self) -> Any:
        """Return the object, or `None`."""
        process = os.getpid()
        if self._process != process:
            self._process, self._server, self._search_at = process, None, 0.0
        server = None if self._server is None else self._server()
        if server is not None:
            # A process may run a second server after the first one has stopped.
            return server if not _stops(server) else _handling(_classes()) or server
        now = monotonic()
        if now < self._search_at:
            return None
        self._search_at = now + _SEARCH_AGAIN
        classes = _classes()
        server = _handling(classes) or _running(classes) if classes else None
        self._server = None if server is None else weakref.ref(server)
        return server


def _stops(server: Any) -> bool:
    # Only a worker of gunicorn has the first attribute, and only uvicorn's server the second.
    return not getattr(server, "alive", True) or bool(getattr(server, "should_exit", False))


def _classes() -> tuple[type, ...]:
    found = [getattr(sys.modules.get(module), name, None) for module, name in _CLASSES.items()]
    return tuple(one for one in found if one is not None)


def _handling(classes: tuple[type, ...]) -> Any:
    """Return the server whose method handles ``SIGTERM``."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(server, classes) else None


def _running(classes: tuple[type, ...]) -> Any:
    """Return the server that has called everything else, if the application handles the signal."""
    for innermost in _innermost_frames():
        frame: FrameType | None = innermost
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith(_MODULES):
                server = frame.f_locals.get("self")
                if isinstance(server, classes):
                    return server
            frame = frame.f_back
    return None


def _innermost_frames() -> Iterator[FrameType]:
    """Yield the innermost frame of each thread, and of the greenlet in which the server waits."""
    yield from sys._current_frames().values()  # pyright: ignore[reportPrivateUsage]
    greenlet: Any = sys.modules.get("greenlet")
    if greenlet is not None:
        current = greenlet.getcurrent()
        while current.parent is not None:
            current = current.parent
        if current.gr_frame is not None:
            yield current.gr_frame


_found: Final = _Found()
