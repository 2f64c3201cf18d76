"""Calls the receivers of signals so that they can't disturb anything else.

`send` and `later` can be called from any thread. `later` never blocks: the receivers run one
after the other in a separate thread, which starts with the first notice and ends when there
have been no notices for a while.
"""

import atexit
import logging
import os
from collections import deque
from inspect import iscoroutinefunction
from typing import Any, Final, NamedTuple
from weakref import ref

from blinker import NamedSignal
from flask import Flask

from flask_sse._system.clock import monotonic
from flask_sse._system.on_demand import OnDemandThread, Run

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
        self._thread = OnDemandThread("flask-sse-signals", self._turn, lambda: bool(self._waiting))
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
        self._thread.wake()

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
        run = self._thread.current()
        if run is not None:
            run.finish()
            run.join(seconds)
        # An interpreter that is shutting down can't start threads any more.
        while self._thread.current() is None and monotonic() < deadline and self._tell_next():
            pass

    def finish_at_exit(self) -> None:
        """Finish within a second, if this is the process that sent the signals."""
        if self._pid == os.getpid():
            self.finish(_EXIT_WITHIN)

    def _turn(self, run: Run) -> bool:
        return self._tell_next() or run.linger(_LINGER)

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

    def _note_dropped(self) -> None:
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:
            text = "signal receivers are too slow: dropped signal number %d"
            _log.warning(text, self._dropped)


def _finish_at_exit(found: "ref[Notices]") -> None:
    notices = found()
    if notices is not None:
        notices.finish_at_exit()
