"""What the frames of a thread reveal about the server that calls the application in it.

Nothing here imports a server or changes it. Call this only in a thread that serves a request.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, Final


def callers() -> Iterator[FrameType]:
    """Yield the frames of this thread, from the caller's to the thread's first."""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        yield frame
        frame = frame.f_back


def concurrency() -> int | None:
    """Return how many requests the server handles at the same time in this process.

    Call it in a thread in which the server calls the application.

    :return: `None` if there is no limit, or if it can't be found out.
    """
    try:
        return _find_concurrency()
    except (AttributeError, KeyError, TypeError, RuntimeError):
        # A version of the server with other names.
        return None


def _find_concurrency() -> int | None:
    if "uwsgi" in sys.modules:
        return int(sys.modules["uwsgi"].cores)
    if "mod_wsgi" in sys.modules:
        return int(sys.modules["mod_wsgi"].threads_per_process)
    for frame in _frames_of_a_pool():
        count = _POOLS.get((frame.f_globals.get("__name__"), frame.f_code.co_name))
        if count is not None:
            return count(frame.f_locals)
    return None


def _frames_of_a_pool() -> Iterator[FrameType]:
    """Yield the frames of which one may know how many threads the server has."""
    yield from callers()
    if "granian" in sys.modules:
        # Its threads have no frame of their own, but its main thread waits in one.
        main = threading.main_thread().ident
        frame = sys._current_frames().get(main or 0)  # pyright: ignore[reportPrivateUsage]
        while frame is not None:
            yield frame
            frame = frame.f_back


def _anyios_threads(_: Mapping[str, Any]) -> int:
    limiter = sys.modules["anyio.to_thread"].current_default_thread_limiter
    return int(sys.modules["anyio.from_thread"].run_sync(limiter).total_tokens)


_POOLS: Final[Mapping[tuple[object, str], Callable[[Mapping[str, Any]], int]]] = {
    ("anyio._backends._asyncio", "run"): _anyios_threads,
    ("cheroot.workers.threadpool", "run"): lambda known: known["self"].server.requests.min,
    # Bridges, Uvicorn, Hypercorn and gunicorn's threads.
    ("concurrent.futures.thread", "_worker"): lambda known: (
        known["executor_reference"]()._max_workers
    ),
    ("granian.server.mp", "_spawn_wsgi_worker"): lambda known: known["blocking_threads"],
    ("gunicorn.workers.sync", "run"): lambda _: 1,
    ("waitress.task", "handler_thread"): lambda known: len(known["self"].threads),
}
"""Functions of servers, in whose local variables the number of threads can be found."""
