"""The caretaker: it notices who has gone, and outlives what goes wrong."""

import socket
import threading
from collections.abc import Iterator

import pytest

from flask_sse._caretaker import Caretaker
from tests.support.waiting import wait_until


class WatchedStream:
    """A stream over a pair of sockets, which notes what the caretaker does."""

    def __init__(self) -> None:
        self.connection, self.client = socket.socketpair()
        self.ended = threading.Event()

    def end(self) -> None:
        """Note it."""
        self.ended.set()

    def send_comment(self, now: float) -> float | None:
        """Fail, as nothing should."""
        raise ZeroDivisionError("unforeseen")

    def close(self) -> None:
        """Close both ends."""
        self.connection.close()
        self.client.close()


@pytest.fixture
def stream() -> Iterator[WatchedStream]:
    """Return a stream; its caretaker's thread has ended afterwards."""
    watched = WatchedStream()
    yield watched
    watched.close()
    wait_until(lambda: care_threads() == 0, "the caretaker has ended")


def care_threads() -> int:
    """Return how many caretakers are at work."""
    return sum(thread.name == "flask-sse-care" for thread in threading.enumerate())


def test_a_client_that_closes_is_noticed(stream: WatchedStream) -> None:
    """The stream is told to end, though nothing is written."""
    caretaker = Caretaker(keepalive=None)
    caretaker.admit(stream)
    assert care_threads() == 1
    stream.client.close()
    assert stream.ended.wait(10)
    caretaker.dismiss(stream)
    caretaker.dismiss(stream)


def test_without_epoll_nothing_is_noticed_and_nothing_fails(
    stream: WatchedStream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a system without epoll the keep-alives find out who has gone."""
    monkeypatch.setattr("flask_sse._sockets.new_epoll", lambda: None)
    caretaker = Caretaker(keepalive=0.1)
    caretaker.admit(stream)
    caretaker.dismiss(stream)
    wait_until(lambda: care_threads() == 0, "the caretaker has ended")
    assert not stream.ended.is_set()
    assert not caplog.text


def test_a_thread_that_does_not_start_is_tried_again(
    stream: WatchedStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is out of threads for once has a caretaker later."""
    caretaker = Caretaker(keepalive=None)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            caretaker.admit(stream)
    caretaker.admit(stream)
    stream.client.close()
    assert stream.ended.wait(10)
    caretaker.dismiss(stream)


def test_a_defect_does_not_leave_later_streams_alone(
    stream: WatchedStream, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody has foreseen is logged, and the next stream has a caretaker again."""
    caretaker = Caretaker(keepalive=0.1)
    caretaker.admit(stream)
    caretaker.keep_alive(stream)
    wait_until(lambda: "ZeroDivisionError: unforeseen" in caplog.text, "logged")
    wait_until(lambda: care_threads() == 0, "the caretaker has ended")
    another = WatchedStream()
    caretaker.admit(another)
    another.client.close()
    assert another.ended.wait(10)
    caretaker.dismiss(another)
    caretaker.dismiss(stream)
    another.close()
