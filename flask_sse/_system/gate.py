"""A gate at which one thread waits until others have something for it.

Any thread can open it, and `open` never blocks. Only one thread may wait at a time.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Final

from flask_sse._system import greenlets
from flask_sse._system.clock import monotonic

_LOOK_AGAIN: Final = 0.1


class Gate:
    """A gate, which is closed at first."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        # Locked while the gate is closed. It is only a lock: each stream that a server reads has
        # one, and takes 16 KiB in all; a gevent queue alone takes 2.8 KiB.
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let the waiting thread pass, or the next one that waits."""
        if self._lock.locked():
            # Two threads may have found it locked.
            with contextlib.suppress(RuntimeError):
                self._lock.release()

    def wait(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait for a condition, which is checked whenever the gate has been opened.

        :param timeout: Seconds, or `None` to wait without a limit.
        :return: `False` after the timeout.
        """
        deadline = None if timeout is None else monotonic() + timeout
        # What opened the gate may be gone by now, so only the condition counts.
        while not condition():
            left = -1 if deadline is None else max(0, deadline - monotonic())
            # If another native thread releases a gevent lock, this one may not wake up.
            if greenlets.crosses_threads():
                left = _LOOK_AGAIN if left < 0 else min(left, _LOOK_AGAIN)
            if not self._lock.acquire(timeout=left) and _is_over(deadline):
                return False
        return True


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and monotonic() >= deadline
