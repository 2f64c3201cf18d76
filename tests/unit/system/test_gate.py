"""The gate at which a thread waits for others."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from flask_sse._system.gate import Gate
from tests.support.waiting import PATIENCE


@contextmanager
def running(*functions: Callable[[], object]) -> Iterator[None]:
    """Run each function in a thread of its own; they have ended when the block ends."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_thread_waits_until_the_gate_is_opened() -> None:
    """The condition is checked again when another thread has opened the gate."""
    gate = Gate()
    given: list[str] = []
    is_checked = threading.Event()
    answers: list[bool] = []

    def is_given() -> bool:
        is_checked.set()
        return bool(given)

    with running(lambda: answers.append(gate.wait(is_given, PATIENCE))):
        assert is_checked.wait(PATIENCE)
        assert answers == []
        given.append("x")
        gate.open()
    assert answers == [True]


def test_a_thread_may_wait_without_a_limit() -> None:
    """It waits until the condition is true, however often the gate is opened before."""
    gate = Gate()
    rounds = [threading.Event() for _ in range(3)]
    given: deque[threading.Event] = deque(rounds)

    def is_last() -> bool:
        if given:
            given.popleft().set()
        return not given

    with running(lambda: gate.wait(is_last, None)):
        for each in rounds:
            assert each.wait(PATIENCE)
            gate.open()


def test_an_opening_is_kept_until_somebody_waits() -> None:
    """A gate is closed at first. It lets one wait pass, however often it was opened before."""
    gate = Gate()
    checks: list[str] = []

    def check() -> bool:
        checks.append("checked")
        return False

    assert not gate.wait(check, 0)
    assert len(checks) == 1
    for _ in range(3):
        gate.open()
    assert not gate.wait(check, 0)
    assert len(checks) == 3
    assert not gate.wait(check, 0)
    assert len(checks) == 4


def test_nobody_waits_for_a_condition_that_is_true() -> None:
    """The gate needn't be open, and remains as it is."""
    gate = Gate()
    assert gate.wait(lambda: True, None)
    gate.open()
    assert gate.wait(lambda: True, 0)


def test_the_wait_has_a_timeout() -> None:
    """A condition that remains false ends the wait after the timeout."""
    gate = Gate()
    assert not gate.wait(lambda: False, 0)
    assert not gate.wait(lambda: False, 0.01)


def test_many_threads_open_it_at_once() -> None:
    """None of them fails, and nothing that they have given is left."""
    gate = Gate()
    given: deque[int] = deque()
    taken: list[int] = []

    def give() -> None:
        for number in range(1000):
            given.append(number)
            gate.open()

    with running(*[give] * 4):
        while len(taken) < 4000 and gate.wait(lambda: bool(given), PATIENCE):
            taken.append(given.popleft())
    assert sorted(taken) == sorted([*range(1000)] * 4)


def test_a_gate_that_is_opened_in_another_loop_of_gevents(monkeypatch: pytest.MonkeyPatch) -> None:
    """The condition is checked now and then, since gevent may not tell the waiting thread."""
    monkeypatch.setattr("flask_sse._system.greenlets.crosses_threads", lambda: True)
    gate = Gate()
    for timeout in (PATIENCE, None):
        answers = iter([False, False, True])
        assert gate.wait(partial(next, answers), timeout)
    assert not gate.wait(lambda: False, 0.01)
