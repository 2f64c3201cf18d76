"""How many streams may be open: ``SSE_MAX_CLIENTS``, or as many as there are descriptors.

It can be called from any thread; nothing blocks.
"""

import contextlib
import logging
import os
import stat
import sys
import threading
from functools import cache
from typing import Final, Self

_log: Final = logging.getLogger("flask_sse")

_DESCRIPTORS: Final = "/dev/fd"


class Places:
    """Places for streams.

    :param limit: The number of places, or `None` for no limit.
    :param reason: The origin of the limit, for the log.
    """

    def __init__(self, limit: int | None, reason: str) -> None:
        self._limit = limit
        self._reason = reason
        self._places = None if limit is None else threading.Semaphore(limit)
        self._full = False

    @classmethod
    def of(cls, limit: int | None) -> Self:
        """Return new places for the application's limit, or those of the process without one."""
        return cls._default(os.getpid()) if limit is None else cls(limit, "SSE_MAX_CLIENTS")

    @classmethod
    @cache
    def _default(cls, _: int) -> Self:
        return cls(
            nine_tenths_of_descriptors(),
            "SSE_MAX_CLIENTS (by default nine tenths of the files that the process may open, "
            "which `ulimit -n` raises)",
        )

    def enter(self) -> bool:
        """Take a place, if there is one."""
        entered = self._places is None or self._places.acquire(blocking=False)
        if not entered and not self._full:
            _log.warning(
                "%s is reached with %d streams; further clients are told to reconnect later",
                self._reason,
                self._limit,
            )
        self._full = not entered
        return entered

    def exit(self) -> None:
        """Free a place."""
        if self._places is not None:
            self._places.release()


def nine_tenths_of_descriptors() -> int | None:
    """Return nine tenths of the descriptors that the process may still open.

    A stream takes one descriptor. The server needs the last tenth to accept connections.
    """
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - Windows has no such module

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return None
    return max(1, (limit - _open_files()) * 9 // 10)


def _open_files() -> int:
    """Count the descriptors of everything but sockets.

    Most sockets are clients that are waiting to be served: if a worker starts while thousands
    of clients reconnect, it has accepted hundreds of them before it opens the first stream.
    """
    number = 0
    for name in os.listdir(_DESCRIPTORS):
        # The descriptor for reading the folder has been closed by now.
        with contextlib.suppress(OSError, ValueError):
            number += not stat.S_ISSOCK(os.fstat(int(name)).st_mode)
    return number
