"""What a process tree costs: processor time and memory."""

from __future__ import annotations

import contextlib
import ctypes
import time
from typing import Final

import psutil

_LIBC: Final = ctypes.CDLL(None)


class ProcessTree:
    """One or more processes with all their descendants."""

    def __init__(self, *pids: int) -> None:
        """Watch the trees under ``pids``."""
        self._roots = [psutil.Process(pid) for pid in pids]

    def processes(self) -> list[psutil.Process]:
        """Return the processes there are now, each root before its descendants."""
        return [
            process for root in self._roots for process in (root, *root.children(recursive=True))
        ]

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, user and system, nothing subtracted."""
        return sum(_cpu_seconds(process.pid) for process in self.processes())

    def pss_bytes(self) -> int:
        """Return the proportional set size: shared pages count once, socket buffers do not."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of one process with all its threads, none if there is none.

    It is the sum of ``utime`` and ``stime``, which ``/proc`` (and so psutil) gives in ticks of
    10 ms only: too coarse for what a thousand connects cost nginx.
    """
    clock = ctypes.c_int()
    if _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)):
        return 0.0
    try:
        return time.clock_gettime(clock.value)
    except OSError:
        return 0.0
