"""The machine that a run takes place on: its limits raised, its description for the report."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path
from typing import Final

_SPARE: Final = 500
"""Descriptors beside those for the clients."""


def raise_limits() -> None:
    """Allow as many open files as the system lets us, which the processes we start inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def shortage(clients: int) -> str | None:
    """Say that the system allows too few open files for ``clients``; ``None`` if it does not."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    # By default Flask-SSE takes streams up to nine tenths of the files that it may open.
    needed = clients * 10 // 9 + _SPARE
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return None
    return f"{clients:,} clients need {needed:,} open files, {allowed:,} are allowed (ulimit -Hn)"


def description() -> list[str]:
    """Describe processor, memory and kernel."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    return [
        f"{_processor()}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"
    ]


def _processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
