"""A thread that starts when there is work, and ends when there is none."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import pytest

from flask_sse._system.on_demand import OnDemandThread, Run
from tests.support.waiting import PATIENCE, wait_until

_LONG: Final = 10 * PATIENCE


class Worker:
    """Does what is in a queue.

    :param linger: Seconds for which the thread waits for more.
    """

    def __init__(self, linger: float = _LONG) -> None:
        self.waiting: deque[str] = deque()
        self.done: list[str] = []
        self.names: set[str] = set()
        self.before_check: Callable[[], None] = lambda: None
        self.thread = OnDemandThread("worker", self._turn, self._has_work)
        self._linger = linger

    def add(self, work: str) -> None:
        """Add work."""
        self.waiting.append(work)
        self.thread.wake()

    def _turn(self, run: Run) -> bool:
        if not self.waiting:
            return run.linger(self._linger)
        self.names.add(threading.current_thread().name)
        self.done.append(self.waiting.popleft())
        return True

    def _has_work(self) -> bool:
        self.before_check()
        return bool(self.waiting)


def test_start_and_end() -> None:
    """It starts with the first work, waits for more, and ends when it is told to."""
    worker = Worker()
    assert worker.thread.current() is None
    worker.add("a")
    wait_until(lambda: worker.done == ["a"], "the first is done")
    run = worker.thread.current()
    assert run is not None
    worker.add("b")
    wait_until(lambda: worker.done == ["a", "b"], "the second is done")
    assert worker.thread.current() is run
    run.finish()
    run.join(PATIENCE)
    assert run.has_ended.is_set()
    assert worker.thread.current() is None
    assert worker.names == {"worker"}


def test_it_ends_by_itself() -> None:
    """Without work for a while, it ends, and starts again with the next work."""
    worker = Worker(linger=0)
    for number in range(3):
        worker.add("x")
        wait_until(lambda: worker.thread.current() is None, "it has ended")
        assert len(worker.done) == number + 1


def test_work_that_comes_at_the_end() -> None:
    """Work that another thread adds while the thread ends is done, in this run or another."""
    worker = Worker(linger=0)
    late = iter("bcdef")

    def add_one() -> None:
        if threading.current_thread().name == "worker" and (work := next(late, "")):
            adding = threading.Thread(target=worker.add, args=(work,))
            adding.start()
            # It may wait for the lock that the thread holds while it ends.
            wait_until(lambda: work in worker.waiting, "it is added")
            threads.append(adding)

    threads: list[threading.Thread] = []
    worker.before_check = add_one
    worker.add("a")
    wait_until(lambda: worker.done == [*"abcdef"], "all is done")
    wait_until(lambda: worker.thread.current() is None, "it has ended")
    for adding in threads:
        adding.join()


def test_out_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, the next work tries again."""

    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    worker = Worker(linger=0)
    with monkeypatch.context() as patch:
        patch.setattr("flask_sse._system.greenlets.start_thread", fail)
        worker.add("a")
    assert worker.thread.current() is None
    worker.add("b")
    wait_until(lambda: worker.done == ["a", "b"], "both are done")
