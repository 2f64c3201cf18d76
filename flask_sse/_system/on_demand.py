"""A thread that starts when there is work, and ends when there has been none for a while.

`wake` and `current` can be called from any thread, and don't block. A :class:`Run` says which of
its methods do.
"""

import threading
from collections.abc import Callable
from functools import partial

from flask_sse._system import greenlets
from flask_sse._system.gate import Gate


class OnDemandThread:
    """A thread, or a greenlet if gevent has patched.

    :param name: The name of the thread.
    :param turn: Called in the thread again and again: works, or waits. It returns `False` if the
        thread may end.
    :param has_work: Whether there is work, so that the thread must not end.
    """

    def __init__(
        self, name: str, turn: Callable[["Run"], bool], has_work: Callable[[], bool]
    ) -> None:
        self._name = name
        self._turn = turn
        self._has_work = has_work
        # Only for the thread's start and end. It is reentrant: while it is held, the garbage
        # collector may close a stream.
        self._lock = threading.RLock()
        self._run: Run | None = None

    def wake(self) -> None:
        """Make the thread look for work that has been added, and start it if it has ended."""
        run = self._run
        if run is None or not run.wake():
            self._start()

    def current(self) -> "Run | None":
        """Return the run that will look for work once more, or `None` if the thread has ended."""
        with self._lock:
            return self._run

    def _start(self) -> None:
        with self._lock:
            if self._run is not None and self._run.wake():
                return
            run = self._run = Run(self._has_work)
            try:
                greenlets.start_thread(partial(self._work, run), self._name)
            except RuntimeError:
                # The process is out of threads: the next call of `wake` tries again.
                self._run = None

    def _work(self, run: "Run") -> None:
        run.thread = threading.current_thread()
        try:
            while self._turn(run) or not self._retire(run):
                pass
        finally:
            run.has_ended.set()

    def _retire(self, run: "Run") -> bool:
        with self._lock:
            # The order matters: a thread that adds work checks this flag afterwards.
            run.is_retired = True
            if self._has_work():
                run.is_retired = False
                return False
            if self._run is run:
                self._run = None
        return True


class Run:
    """One run of such a thread, from its start to its end."""

    def __init__(self, has_work: Callable[[], bool]) -> None:
        self.lingers = True
        """Whether it waits for more work before it ends."""
        self.is_retired = False
        """Whether it looks for no more work."""
        self.has_ended = threading.Event()
        self.thread: threading.Thread | None = None
        self._has_work = has_work
        self._gate = Gate()

    def wake(self) -> bool:
        """End the wait; return whether the thread will still look for work."""
        self._gate.open()
        return not self.is_retired

    def wait(self, seconds: float) -> None:
        """Wait for work, in the thread itself."""
        self._gate.wait(self._has_work, seconds)

    def linger(self, seconds: float) -> bool:
        """Wait for work, in the thread itself, unless it must end; return whether there is some."""
        self._gate.wait(lambda: self._has_work() or not self.lingers, seconds)
        return self._has_work()

    def finish(self) -> None:
        """Make the thread end as soon as it has no work."""
        self.lingers = False
        self.wake()

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended. It blocks for about so many seconds at most."""
        self.has_ended.wait(seconds)
        if type(self.thread) is threading.Thread and self.has_ended.is_set():
            self.thread.join(seconds)
