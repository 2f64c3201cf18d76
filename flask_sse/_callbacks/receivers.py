"""Calls the receivers of signals so that they can't disturb anything else.

`send` and `later` can be called from any thread. `later` never blocks: the receivers run one
after the other in a separate thread, which starts with the first notice and ends when there
have been no notices for a while.
"""

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Sized
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Final, NamedTuple
from weakref import ref

from blinker import NamedSignal
from flask import Flask

from flask_sse._system import greenlets
from flask_sse._system.clock import monotonic
from flask_sse._system.gate import Gate

_log: Final = logging.getLogger("flask_sse")

_MOST_WAITING: Final = 1 << 16
_LINGER: Final = 30.0
_EXIT_WITHIN: Final = 1.0


class _Notice(NamedTuple):
    signal: NamedSignal
    values: dict[str, Any]


class Notices:
    """Calls the receivers for one application.

    :param app: The sender of the signals.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._waiting: deque[_Notice] = deque()
        self._dropped = 0
        # Only for the worker's start and end. It is reentrant: while it is held, the garbage
        # collector may close a stream.
        self._lock = threading.RLock()
        self._worker: _Worker | None = None
        self._pid = os.getpid()
        self._is_awaited = False

    def send(self, signal: NamedSignal, **values: Any) -> None:
        """Call the receivers immediately, in this thread; errors are logged."""
        if signal.is_muted:
            return
        for receiver in signal.receivers_for(self._app):
            try:
                call: Any = receiver
                if iscoroutinefunction(receiver):
                    call = self._app.ensure_sync(receiver)
                call(self._app, **values)
            except Exception:  # noqa: BLE001 - no error may stop anything else
                _log.exception("a receiver of the signal %s has failed", signal.name)

    def later(self, signal: NamedSignal, **values: Any) -> None:
        """Call the receivers in the other thread, in the order of the calls of this method."""
        if not signal.receivers:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._note_dropped()
            return
        self._waiting.append(_Notice(signal, values))
        worker = self._worker
        if worker is None or not worker.wake():
            self._start()

    def await_at_exit(self) -> None:
        """Make the process wait for the receivers before it exits, for at most a second."""
        if not self._is_awaited:
            self._is_awaited = True
            atexit.register(_finish_at_exit, ref(self))

    def finish(self, seconds: float) -> None:
        """Wait until the receivers of all sent signals have run, and end the thread.

        :param seconds: How long to wait at most.
        """
        deadline = monotonic() + seconds
        with self._lock:
            worker = self._worker
            if worker is not None:
                worker.lingers = False
                worker.wake()
        if worker is not None:
            worker.has_ended.wait(seconds)
            if type(worker.thread) is threading.Thread and worker.has_ended.is_set():
                worker.thread.join(seconds)
        # An interpreter that is shutting down can't start threads any more.
        while self._worker is None and monotonic() < deadline and self._tell_next():
            pass

    def finish_at_exit(self) -> None:
        """Finish within a second, if this is the process that sent the signals."""
        if self._pid == os.getpid():
            self.finish(_EXIT_WITHIN)

    def _start(self) -> None:
        with self._lock:
            if self._worker is not None and self._worker.wake():
                return
            worker = self._worker = _Worker()
            try:
                greenlets.start_thread(partial(self._run, worker), "flask-sse-signals")
            except RuntimeError:
                # The process is out of threads: the next notice tries again.
                self._worker = None

    def _run(self, worker: "_Worker") -> None:
        worker.thread = threading.current_thread()
        try:
            while self._tell_next() or worker.wait(self._waiting) or not self._retire(worker):
                pass
        finally:
            worker.has_ended.set()

    def _tell_next(self) -> bool:
        """Send the first waiting notice; return whether there was one."""
        try:
            signal, values = self._waiting.popleft()
        except IndexError:
            return False
        try:
            with self._app.app_context():
                self.send(signal, **values)
        except Exception:  # noqa: BLE001 - a teardown function is the application's
            _log.exception("the teardown of a signal's application context has failed")
        return True

    def _retire(self, worker: "_Worker") -> bool:
        with self._lock:
            # The order matters: a thread that adds a notice checks this flag afterwards.
            worker.is_retired = True
            if self._waiting:
                worker.is_retired = False
                return False
            if self._worker is worker:
                self._worker = None
        return True

    def _note_dropped(self) -> None:
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:
            text = "signal receivers are too slow: dropped signal number %d"
            _log.warning(text, self._dropped)


def _finish_at_exit(found: "ref[Notices]") -> None:
    notices = found()
    if notices is not None:
        notices.finish_at_exit()


class _Worker:
    """The state of the thread, and the way to wake it."""

    def __init__(self) -> None:
        self.lingers = True
        self.is_retired = False
        self.has_ended = threading.Event()
        self.thread: threading.Thread | None = None
        self._gate = Gate()

    def wake(self) -> bool:
        """End the wait; return whether the thread will still look for notices."""
        self._gate.open()
        return not self.is_retired

    def wait(self, waiting: Sized) -> bool:
        """Wait for a notice; return `False` if there has been none for a while."""
        self._gate.wait(lambda: bool(waiting) or not self.lingers, _LINGER)
        return self.lingers and bool(waiting)
