"""How many streams may be open: ``SSE_MAX_CLIENTS``, or as many as there are descriptors.

It can be called from any thread; nothing blocks.
"""

import contextlib
import logging
import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Iterable
from functools import cache
from typing import Final, Self

_log: Final = logging.getLogger("flask_sse")

_DESCRIPTORS: Final = "/dev/fd"
_FIRST: Final = 4096


class Places:
    """Places for streams.

    :param limit: The number of places, or `None` for no limit.
    :param reason: The origin of the limit, for the log.
    """

    def __init__(self, limit: int | None, reason: str) -> None:
        self._limit = limit
        self._reason = reason
        # Only for `take`. `free` needs no lock, because the garbage collector may close a stream
        # at any time, also while this lock is held.
        self._lock = threading.Lock()
        self._taken = 0
        self._freed: deque[None] = deque()
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

    def take(self) -> "Place | None":
        """Take a place; return `None` if there is none."""
        if self._limit is None:
            return Place(self)
        with self._lock:
            while self._freed:
                self._freed.pop()
                self._taken -= 1
            is_free = self._taken < self._limit
            self._taken += is_free
        if not is_free and not self._full:
            _log.warning(
                "%s is reached with %d streams; further clients are told to reconnect later",
                self._reason,
                self._limit,
            )
        self._full = not is_free
        return Place(self) if is_free else None

    def free(self) -> None:
        """Free a place. After a hand-over, the connection frees its place in this way."""
        if self._limit is not None:
            self._freed.append(None)


class Place:
    """A place that is taken until it is released."""

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places: Places | None = places

    def release(self) -> None:
        """Free the place. Only the first call has an effect."""
        places, self._places = self._places, None
        if places is not None:
            places.free()


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
    for descriptor in _possible_descriptors():
        # The descriptor for reading the folder has been closed by now.
        with contextlib.suppress(OSError):
            number += not stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    return number


def _possible_descriptors() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir(_DESCRIPTORS) if name.isdecimal()]
    except OSError:
        # There is no /proc, for example. New descriptors get the lowest free numbers.
        return range(_FIRST)
