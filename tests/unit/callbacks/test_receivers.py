"""The worker that runs the receivers of signals: its thread, its limits, and its end."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from inspect import iscoroutinefunction
from typing import Any, Final

import pytest
from blinker import NamedSignal
from flask import Flask

from flask_sse._callbacks.receivers import Notices
from tests.support.waiting import PATIENCE, wait_until

SIGNAL: Final = NamedSignal("of-tests")


class App(Flask):
    """An application whose receivers may be coroutines, without another package."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Run a coroutine to its end."""
        if not iscoroutinefunction(func):
            return super().ensure_sync(func)
        return lambda *arguments, **values: asyncio.run(func(*arguments, **values))


@pytest.fixture
def notices() -> Iterator[Notices]:
    """Return the notices of an application, whose thread has ended when the test ends."""
    notices = Notices(App("tests"))
    yield notices
    notices.finish(10)
    wait_until(lambda: threads() == 0, "the thread ends")


@pytest.fixture
def received() -> Iterator[list[object]]:
    """Return what has been received, in a list that grows."""
    values: list[object] = []

    def receive(_: Flask, value: object) -> None:
        values.append(value)

    with SIGNAL.connected_to(receive):
        yield values


def threads() -> int:
    """Return how many threads run receivers."""
    return sum(thread.name == "flask-sse-signals" for thread in threading.enumerate())


def test_the_thread_ends_after_a_while(
    notices: Notices, received: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one thread, which lingers; the next notice starts another one."""
    monkeypatch.setattr("flask_sse._callbacks.receivers._LINGER", 0.02)
    for number in range(3):
        notices.later(SIGNAL, value=number)
        wait_until(lambda number=number: len(received) == number + 1, "it is received")  # type: ignore[misc]
        wait_until(lambda: threads() == 0, "the thread ends")
    assert received == [0, 1, 2]


def test_no_notice_is_left_when_the_thread_ends(
    notices: Notices, received: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No notice is left waiting if many threads send while the worker ends again and again."""
    monkeypatch.setattr("flask_sse._callbacks.receivers._LINGER", 0.0)

    def send(first: int) -> None:
        for number in range(first, first + 500):
            notices.later(SIGNAL, value=number)

    senders = [threading.Thread(target=send, args=(first,)) for first in (0, 500, 1000)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    wait_until(lambda: len(received) == 1500, "all are received")
    assert sorted(map(int, map(str, received))) == list(range(1500))
    for first in (0, 500, 1000):
        own = [number for number in map(int, map(str, received)) if first <= number < first + 500]
        assert own == sorted(own)


def test_without_a_thread(
    notices: Notices, received: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no thread can be started, a notice is sent with the next one, or at the end."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        notices.later(SIGNAL, value="first")
    assert received == []
    notices.later(SIGNAL, value="second")
    wait_until(lambda: received == ["first", "second"], "both are told")
    notices.finish(10)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    notices.later(SIGNAL, value="third")
    notices.finish(10)
    assert received == ["first", "second", "third"]


def test_coroutines(notices: Notices) -> None:
    """A receiver may be a coroutine, as the application's views may be."""
    received: list[object] = []

    async def receive(_: Flask, value: object) -> None:
        received.append(value)

    with SIGNAL.connected_to(receive):
        notices.send(SIGNAL, value="now")
        notices.later(SIGNAL, value="later")
        notices.finish(10)
    assert received == ["now", "later"]


def test_a_muted_signal(notices: Notices, received: list[object]) -> None:
    """No receivers are called while a signal is muted."""
    with SIGNAL.muted():
        notices.send(SIGNAL, value="x")
    assert received == []


def test_a_teardown_that_fails(received: list[object], caplog: pytest.LogCaptureFixture) -> None:
    """Receivers are called even if the application's teardown fails."""
    app = App("tests")

    @app.teardown_appcontext
    def fail(_: BaseException | None) -> None:
        raise ZeroDivisionError

    notices = Notices(app)
    for number in range(2):
        notices.later(SIGNAL, value=number)
    notices.finish(10)
    assert received == [0, 1]
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert messages == ["the teardown of a signal's application context has failed"] * 2


def test_a_receiver_that_hangs(notices: Notices) -> None:
    """Waiting for the end has a timeout."""
    may_end = threading.Event()

    def hang(_: Flask, value: object) -> None:
        may_end.wait(PATIENCE)

    with SIGNAL.connected_to(hang):
        notices.later(SIGNAL, value="x")
        wait_until(lambda: threads() == 1, "the receiver runs")
        notices.finish(0.01)
        assert threads() == 1
        may_end.set()
