"""Functions given to call_on_close: they run in the background, and disturb nothing."""

import threading
from functools import partial

import pytest

from flask_sse._callbacks.on_close import run_in_background
from tests.support.waiting import PATIENCE, wait_until


def closing_threads() -> int:
    """Return how many threads run such functions."""
    return sum(thread.name == "flask-sse-close" for thread in threading.enumerate())


def test_many_that_are_slow_share_a_few_threads() -> None:
    """The number of threads is limited, even if many streams end, and every function runs."""
    may_end = threading.Event()
    ended: list[int] = []

    def wait(number: int) -> None:
        may_end.wait(PATIENCE)
        ended.append(number)

    for number in range(30):
        run_in_background([partial(wait, number)])
    assert closing_threads() <= 8
    may_end.set()
    wait_until(lambda: len(ended) == 30, "all have run")
    wait_until(lambda: closing_threads() == 0, "no thread is left")


def test_without_a_thread_it_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is out of threads runs the function when the next stream ends."""
    ran: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        run_in_background([lambda: ran.append("first")])
    assert ran == []
    run_in_background([lambda: ran.append("second")])
    wait_until(lambda: ran == ["first", "second"], "both have run")
