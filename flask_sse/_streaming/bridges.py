"""Bridges, which run a WSGI application on an ASGI server, and clients that have left.

An ASGI server drops data for a client that has left. Only ``receive`` tells the application,
and no bridge calls it again once the request has arrived. So it is called here.

Nothing here imports a bridge or changes it; a bridge that is not as expected can't be watched.
Call this only in the thread that reads the stream, below the bridge. It waits for a turn of the
server's event loop, as bridges do when they send something.
"""

import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from functools import partial
from types import FrameType
from typing import Any, Final

from flask_sse._streaming import threads

_Receive = Callable[[], Awaitable[Mapping[str, Any]]]
_Job = Callable[[], Coroutine[Any, Any, bool]]

A2WSGI: Final = "a2wsgi's WSGIMiddleware"
_ASGIREF: Final = "asgiref.wsgi"
_HYPERCORN: Final = "hypercorn.app_wrappers"
_STARLETTE: Final = "starlette.middleware.wsgi"
_UVICORN: Final = "uvicorn.middleware.wsgi"
_NAMES: Final[Mapping[str, str]] = {
    "a2wsgi.wsgi": A2WSGI,
    _ASGIREF: "asgiref's WsgiToAsgi",
    _HYPERCORN: "Hypercorn's own WSGI adapter",
    _STARLETTE: "Starlette's WSGIMiddleware",
    _UVICORN: "Uvicorn's own WSGIMiddleware",
}
"""The modules of bridges, and what messages call them."""

_watching: Final[set[object]] = set()
"""The tasks that wait for a disconnect; event loops have only weak references to tasks."""


class Bridge:
    """A bridge that has called the application.

    :param module: The bridge's module.
    :param known: The local variables of its function in this thread.
    """

    def __init__(self, module: str, known: Mapping[str, Any]) -> None:
        self._module = module
        self._known = known
        self.name = _NAMES[module]
        self.has_one_thread = module == _ASGIREF
        self.collects_without_limit = module in {_STARLETTE, _UVICORN}

    def call_when_gone(self, func: Callable[[], object]) -> bool:
        """Call *func* in the event loop once the client has left or the response has ended.

        :return: `False` if that can't be noticed.
        """
        job = partial(_watch, self._module, self._known["environ"], func)
        try:
            return bool(self._run_in_loop(job))
        except (AttributeError, KeyError, RuntimeError):
            # A version of the bridge with other names, or an event loop that is not asyncio's.
            return False

    def _run_in_loop(self, job: _Job) -> Any:
        """Run *job* in the event loop in the way in which the bridge sends, and wait for it."""
        if self._module == _STARLETTE:
            return sys.modules["anyio.from_thread"].run(job)
        if self._module == _HYPERCORN:
            return self._known["send"].func(job)
        bridge = self._known["self"]
        if self._module == _ASGIREF:
            return type(bridge.sync_send)(job)()
        return sys.modules["asyncio"].run_coroutine_threadsafe(job(), bridge.loop).result()


def find_bridge() -> Bridge | None:
    """Return the bridge that has called the application, if it runs on one."""
    for frame in threads.callers():
        module = str(frame.f_globals.get("__name__"))
        if module in _NAMES and "environ" in frame.f_locals:
            return Bridge(module, frame.f_locals)
    return None


async def _watch(module: str, environ: Mapping[str, Any], func: Callable[[], object]) -> bool:
    import asyncio  # noqa: PLC0415 - the bridge has imported it, and other servers don't need it

    receive = _find_receive(module, environ, asyncio.all_tasks())
    if receive is None:
        return False
    task = asyncio.create_task(_wait(receive, func))
    _watching.add(task)
    task.add_done_callback(_forget)
    return True


async def _wait(receive: _Receive, func: Callable[[], object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    func()


def _forget(task: Any) -> None:
    _watching.discard(task)
    if not task.cancelled():
        # asyncio logs an error that nobody has asked for.
        task.exception()


def _find_receive(module: str, environ: Mapping[str, Any], tasks: set[Any]) -> _Receive | None:
    """Return the request's ``receive``.

    a2wsgi's input has it. Otherwise only the bridge's coroutine has it, which waits for the
    thread that runs the application, and shares the environ or the body with it.
    """
    body = environ.get("wsgi.input")
    found: _Receive | None = getattr(body, "receive", None)
    if found is not None:
        return found
    for task in tasks:
        for frame in _frames(task.get_coro()):
            if frame.f_globals.get("__name__") != module:
                continue
            known = frame.f_locals
            if "receive" in known and (
                known.get("environ") is environ or (body is not None and known.get("body") is body)
            ):
                receive: _Receive = known["receive"]
                return receive
    return None


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of those for which it waits."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
