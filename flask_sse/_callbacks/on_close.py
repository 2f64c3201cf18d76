"""Runs the functions that an application wants to be called when a stream has ended.

`run_in_background` can be called from any thread and does not block: the functions run in
a few separate threads, which exist as long as there is something to run. A function
that is slow or fails does not affect the others.
"""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from flask_sse._system.clock import monotonic

_log: Final = logging.getLogger("flask_sse")

Callback = Callable[[], object]

_MOST_THREADS: Final = 8
_EXIT_WITHIN: Final = 1.0


def run(callbacks: Iterable[Callback]) -> None:
    """Run functions immediately, in this thread; errors are logged."""
    for callback in callbacks:
        try:
            callback()
        except Exception:  # noqa: BLE001 - no error may stop anything else
            _log.exception("a function given to call_on_close has failed")


def run_in_background(callbacks: Iterable[Callback]) -> None:
    """Run functions in another thread."""
    _background.add(callbacks)


def await_at_exit() -> None:
    """Make the process wait for these functions before it exits, for at most a second."""
    _background.await_at_exit()


class _Background:
    def __init__(self) -> None:
        self._waiting: deque[Iterable[Callback]] = deque()
        self._lock = threading.Lock()
        self._threads = 0
        self._waits_at_exit = False

    def add(self, callbacks: Iterable[Callback]) -> None:
        self._waiting.append(callbacks)
        with self._lock:
            if self._threads == _MOST_THREADS:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name="flask-sse-close", daemon=True).start()
        except RuntimeError:
            # The threads that are already running do the work.
            with self._lock:
                self._threads -= 1

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                callbacks = self._waiting.popleft()
            run(callbacks)

    def await_at_exit(self) -> None:
        with self._lock:
            if self._waits_at_exit:
                return
            self._waits_at_exit = True
        atexit.register(self._await_end)

    def _await_end(self) -> None:
        deadline = monotonic() + _EXIT_WITHIN
        while self._threads and monotonic() < deadline:
            time.sleep(0.01)


_background: Final = _Background()
