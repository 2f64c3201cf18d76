"""Runs what an application wants called when a stream has ended.

`run_in_background` may be called from any thread and does not block: the functions run in
a few threads of their own, which exist as long as there is something to run. A function
that is slow or fails harms nobody else's.
"""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

_log: Final = logging.getLogger("flask_sse")

Callback = Callable[[], object]

_MOST_THREADS: Final = 8
_EXIT_WITHIN: Final = 1.0


def run(callbacks: Iterable[Callback]) -> None:
    """Run functions here and now; an error is logged."""
    for callback in callbacks:
        try:
            callback()
        except Exception:  # noqa: BLE001 - whatever it is, it ends nothing else
            _log.exception("a function given to call_on_close has failed")


def run_in_background(callbacks: Iterable[Callback]) -> None:
    """Have functions run in another thread."""
    _background.add(callbacks)


def await_at_exit() -> None:
    """Have the process wait for these functions, a second at most, before it ends."""
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
            # Those that are at work take it over.
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
        deadline = time.monotonic() + _EXIT_WITHIN
        while self._threads and time.monotonic() < deadline:
            time.sleep(0.01)


_background: Final = _Background()
