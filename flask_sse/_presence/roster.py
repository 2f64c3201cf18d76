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
from enum import Enum, auto
from typing import Final, NamedTuple, TypeVar
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


T = TypeVar("T")


class Departure(Enum):
    """How a stream has ended, which says when its client may come back."""

    GONE = auto()
    """The client has closed it, or may not have it any more."""
    ENDED = auto()
    """The server has ended it, and expects the client to reconnect."""
    STOP = auto()
    """The process stops, and the client comes back elsewhere."""


class _Note(NamedTuple):
    """A stream has begun or ended."""

    channel: bytes
    client: str
    departure: Departure | None
    """How it has ended; `None` if it has begun."""


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
        self._add(_Note(channel, client, None))

    def leave(self, channel: bytes, client: str, departure: Departure) -> None:
        """Note that a stream has ended."""
        self._add(_Note(channel, client, departure))

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
        if self._ask(self._awaited, has_settled) is not None:
            has_settled.wait(seconds)

    def finish(self, seconds: float, *, is_stopping: bool = False) -> None:
        """Tell Redis what is waiting, and end the thread unless there are streams.

        :param seconds: How long to wait at most.
        :param is_stopping: Shorten all leases, because the process stops. Otherwise clients
            without streams have left, without an absence.
        """
        request = _Request(is_stopping=is_stopping)
        run = self._ask(self._requests, request)
        if run is None:
            return
        request.is_done.wait(seconds)
        if request.ends_thread:
            run.join(seconds)

    def _ask(self, queue: deque[T], request: T) -> Run | None:
        """Put a request into a queue; return the run that will answer it, if the thread runs."""
        queue.append(request)
        run = self._thread.current()
        if run is None:
            # A thread that has just started may have seen it.
            with contextlib.suppress(ValueError):
                queue.remove(request)
        else:
            run.wake()
        return run

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
            # If the same happens again at once, it must not fill the log.
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
            channel, client, departure = self._notes.popleft()
            if departure is None:
                # A process may run a second server after the first one has stopped.
                self._is_stopping = False
                self._registrar.enter(channel, client)
            else:
                is_stopping = is_stopping or departure is Departure.STOP
                is_expected = departure is Departure.ENDED
                self._registrar.leave(channel, client, is_expected=is_expected)
        if is_stopping and not self._is_stopping:
            self._stop()

    def _stop(self) -> None:
        self._is_stopping = True
        self._registrar.say_farewell()

    def _finish(self, run: Run, request: _Request) -> None:
        try:
            if request.is_stopping:
                if not self._is_stopping:
                    self._stop()
            else:
                run.finish()
                self._registrar.end_absences()
                while not self._registrar.is_idle and self._registrar.pause() == 0:
                    self._registrar.work()
                request.ends_thread = self._registrar.is_idle
        finally:
            # Whoever has asked must not wait longer because of an error.
            request.is_done.set()


def _finish_at_exit(found: "ref[Roster]", pid: int) -> None:
    roster = found()
    if roster is not None and os.getpid() == pid:
        roster.finish(_FAREWELL_WITHIN, is_stopping=True)
