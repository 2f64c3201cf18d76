"""Notes which clients have streams of which channels, for all threads.

All methods can be called from any thread. Only `finish` blocks. The others leave a note for a
thread of its own (a greenlet if gevent has patched), which starts with the first note and ends
when there are no members.
"""

import atexit
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple
from weakref import ref

from flask_sse._presence.registrar import Announcement, Registrar
from flask_sse._presence.room import Times
from flask_sse._redis.scripts import Scripts
from flask_sse._system import greenlets
from flask_sse._system.gate import Gate

_log: Final = logging.getLogger("flask_sse")

TIMES: Final = Times()
_LINGER: Final = 2.0
_AFTER_ERROR: Final = 0.5
_FAREWELL_WITHIN: Final = 1.0


class _Note(NamedTuple):
    """A stream has begun or ended."""

    channel: bytes
    client: str
    has_begun: bool
    is_stopping: bool = False
    """Whether it has ended because the process stops."""


class Roster:
    """The members of the channels of one Redis in this process.

    :param scripts: Leads to that Redis.
    :param announce: Publishes an event about a member.
    """

    def __init__(
        self,
        scripts: Scripts,
        announce: Callable[[Announcement], None],
        times: Times | None = None,
    ) -> None:
        process = secrets.token_urlsafe(6)
        self._registrar = Registrar(process, scripts, announce, times or TIMES)
        self._notes: deque[_Note] = deque()
        # Only for the thread's start and end. It is reentrant: while it is held, the garbage
        # collector may close a stream.
        self._lock = threading.RLock()
        self._worker: _Worker | None = None
        self._is_stopping = False
        self._stops_at_exit = False

    def enter(self, channel: bytes, client: str) -> None:
        """Note that a stream has begun."""
        self._add(_Note(channel, client, has_begun=True))

    def leave(self, channel: bytes, client: str, *, is_stopping: bool) -> None:
        """Note that a stream has ended.

        :param is_stopping: Whether the reason is that the process stops, so that the client comes
            back elsewhere.
        """
        self._add(_Note(channel, client, has_begun=False, is_stopping=is_stopping))

    def prepare(self) -> None:
        """Make the process shorten its leases before it exits."""
        if not self._stops_at_exit:
            self._stops_at_exit = True
            atexit.register(_finish_at_exit, ref(self), os.getpid())

    def finish(self, seconds: float, *, is_stopping: bool = False) -> None:
        """Tell Redis what is waiting, and end the thread unless there are streams.

        :param seconds: How long to wait at most.
        :param is_stopping: Shorten all leases, because the process stops. Otherwise clients
            without streams have left, without an absence.
        """
        with self._lock:
            worker = self._worker
            if worker is None:
                return
            worker.has_finished.clear()
            worker.must_stop = is_stopping
            worker.must_finish = True
            worker.wake()
        worker.has_finished.wait(seconds)
        if self._worker is not worker and type(worker.thread) is threading.Thread:
            worker.thread.join(seconds)

    def _add(self, note: _Note) -> None:
        self._notes.append(note)
        worker = self._worker
        if worker is None or not worker.wake():
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._worker is not None and self._worker.wake():
                return
            worker = self._worker = _Worker()
            try:
                greenlets.start_thread(partial(self._run, worker), "flask-sse-presence")
            except RuntimeError:
                # The process is out of threads: the next note tries again.
                self._worker = None

    def _run(self, worker: "_Worker") -> None:
        worker.thread = threading.current_thread()
        try:
            while True:
                try:
                    while self._turn(worker) or not self._retire(worker):
                        pass
                except Exception:  # noqa: BLE001 - the members need a thread after any error
                    _log.exception("the thread for presence has failed and continues")
                    time.sleep(_AFTER_ERROR)
                else:
                    break
        finally:
            worker.has_finished.set()

    def _turn(self, worker: "_Worker") -> bool:
        """Do what is due, and wait; return whether there may be more to do."""
        self._collect()
        if worker.must_finish:
            self._finish(worker)
        if self._is_stopping:
            worker.wait(self._notes, _LINGER)
            return bool(self._notes)
        self._registrar.work()
        if self._notes or worker.must_finish:
            return True
        if not self._registrar.is_idle:
            worker.wait(self._notes, self._registrar.pause())
            return True
        if worker.lingers:
            worker.wait(self._notes, _LINGER)
        return bool(self._notes)

    def _collect(self) -> None:
        is_stopping = False
        while self._notes:
            channel, client, has_begun, has_stopped = self._notes.popleft()
            if has_begun:
                # A process may run a second server after the first one has stopped.
                self._is_stopping = False
                self._registrar.enter(channel, client)
            else:
                is_stopping = is_stopping or has_stopped
                self._registrar.leave(channel, client)
        if is_stopping and not self._is_stopping:
            self._stop()

    def _stop(self) -> None:
        self._is_stopping = True
        self._registrar.say_farewell()

    def _finish(self, worker: "_Worker") -> None:
        worker.must_finish = False
        if worker.must_stop:
            if not self._is_stopping:
                self._stop()
        else:
            worker.lingers = False
            self._registrar.end_absences()
            while not self._registrar.is_idle and self._registrar.pause() == 0:
                self._registrar.work()
        if worker.must_stop or not self._registrar.is_idle:
            worker.has_finished.set()

    def _retire(self, worker: "_Worker") -> bool:
        with self._lock:
            # The order matters: a thread that adds a note checks this flag afterwards.
            worker.is_retired = True
            if self._notes or worker.must_finish:
                worker.is_retired = False
                return False
            if self._worker is worker:
                self._worker = None
        return True


def _finish_at_exit(found: "ref[Roster]", pid: int) -> None:
    roster = found()
    if roster is not None and os.getpid() == pid:
        roster.finish(_FAREWELL_WITHIN, is_stopping=True)


class _Worker:
    """The state of the thread, and the way to wake it."""

    def __init__(self) -> None:
        self.lingers = True
        self.must_finish = False
        self.must_stop = False
        self.is_retired = False
        self.has_finished = threading.Event()
        self.thread: threading.Thread | None = None
        self._gate = Gate()

    def wake(self) -> bool:
        """End the wait; return whether the thread will still look for notes."""
        self._gate.open()
        return not self.is_retired

    def wait(self, notes: "deque[_Note]", seconds: float) -> None:
        """Wait for a note or a request."""
        self._gate.wait(lambda: bool(notes) or self.must_finish, seconds)
