"""Notes which clients have streams of which channels, for all threads.

All methods can be called from any thread. Only `finish` blocks. The others leave a note for a
thread of its own (a greenlet if gevent has patched), which starts with the first note and ends
when there are no members.
"""

import atexit
import contextlib
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple
from weakref import ref

from flask_sse._presence.registrar import Announcement, Registrar
from flask_sse._presence.room import Times
from flask_sse._redis.scripts import Scripts
from flask_sse._system.on_demand import OnDemandThread, Run

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


class _Request:
    """Asks the thread to finish.

    :param is_stopping: Whether the process stops.
    """

    def __init__(self, *, is_stopping: bool) -> None:
        self.is_stopping = is_stopping
        self.is_done = threading.Event()
        self.ends_thread = False
        """Whether the thread has nothing left to do."""


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
        self._requests: deque[_Request] = deque()
        self._awaited: deque[threading.Event] = deque()
        """To be set when nothing is due."""
        self._thread = OnDemandThread("flask-sse-presence", self._try_turn, self._has_work)
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

    def settle(self, seconds: float) -> None:
        """Wait until the clients whose streams have begun are members, and this is announced.

        If Redis can't be reached, nothing is awaited.

        :param seconds: How long to wait at most.
        """
        has_settled = threading.Event()
        self._awaited.append(has_settled)
        run = self._thread.current()
        if run is None:
            # A thread that has just started may have seen it.
            with contextlib.suppress(ValueError):
                self._awaited.remove(has_settled)
            return
        run.wake()
        has_settled.wait(seconds)

    def finish(self, seconds: float, *, is_stopping: bool = False) -> None:
        """Tell Redis what is waiting, and end the thread unless there are streams.

        :param seconds: How long to wait at most.
        :param is_stopping: Shorten all leases, because the process stops. Otherwise clients
            without streams have left, without an absence.
        """
        request = _Request(is_stopping=is_stopping)
        self._requests.append(request)
        run = self._thread.current()
        if run is None:
            # A thread that has just started may have seen it.
            with contextlib.suppress(ValueError):
                self._requests.remove(request)
            return
        run.wake()
        request.is_done.wait(seconds)
        if request.ends_thread:
            run.join(seconds)

    def _add(self, note: _Note) -> None:
        self._notes.append(note)
        self._thread.wake()

    def _has_work(self) -> bool:
        return bool(self._notes or self._requests or self._awaited)

    def _try_turn(self, run: Run) -> bool:
        try:
            return self._turn(run)
        except Exception:  # noqa: BLE001 - the members need a thread after any error
            _log.exception("the thread for presence has failed and continues")
            time.sleep(_AFTER_ERROR)
            return True

    def _turn(self, run: Run) -> bool:
        """Do what is due, and wait; return whether there may be more to do."""
        self._collect()
        if self._requests:
            self._finish(run, self._requests.popleft())
        if self._is_stopping:
            self._note_settled()
            run.wait(_LINGER)
            return self._has_work()
        self._registrar.work()
        if self._notes or self._requests:
            return True
        if self._registrar.is_idle or self._registrar.pause() > 0:
            self._note_settled()
        if not self._registrar.is_idle:
            run.wait(self._registrar.pause())
            return True
        return run.linger(_LINGER)

    def _note_settled(self) -> None:
        while self._awaited:
            self._awaited.popleft().set()

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

    def _finish(self, run: Run, request: _Request) -> None:
        if request.is_stopping:
            if not self._is_stopping:
                self._stop()
        else:
            run.finish()
            self._registrar.end_absences()
            while not self._registrar.is_idle and self._registrar.pause() == 0:
                self._registrar.work()
            request.ends_thread = self._registrar.is_idle
        request.is_done.set()


def _finish_at_exit(found: "ref[Roster]", pid: int) -> None:
    roster = found()
    if roster is not None and os.getpid() == pid:
        roster.finish(_FAREWELL_WITHIN, is_stopping=True)
