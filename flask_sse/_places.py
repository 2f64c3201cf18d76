"""How many streams may be open: ``SSE_MAX_CLIENTS``, or what the process has descriptors for.

May be called from any thread; nothing blocks.
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

    :param limit: How many there are, or `None` for as many as come.
    :param reason: What sets the limit, for the log.
    """

    def __init__(self, limit: int | None, reason: str) -> None:
        self._limit = limit
        self._reason = reason
        self._places = None if limit is None else threading.Semaphore(limit)
        self._full = False

    @classmethod
    def of(cls, limit: int | None) -> Self:
        """Return the places of an application that sets the limit, or the process's places."""
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
        """Give a place back."""
        if self._places is not None:
            self._places.release()


def nine_tenths_of_descriptors() -> int | None:
    """Return nine tenths of the descriptors that the process may still open.

    A stream takes one. The last tenth is for the server, which could accept nobody without.
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

    Most sockets are clients that wait for their turn: a worker that starts while thousands
    reconnect has accepted hundreds of them by the time of the first stream.
    """
    number = 0
    for name in os.listdir(_DESCRIPTORS):
        # The descriptor with which the folder is read has been closed by now.
        with contextlib.suppress(OSError, ValueError):
            number += not stat.S_ISSOCK(os.fstat(int(name)).st_mode)
    return number
