"""Signals: their values, senders and threads; receivers do not disturb streams."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from blinker import NamedSignal
from flask import Flask, current_app, g, has_request_context

from flask_sse import Message, ServerSentEventsBlueprint, signals, sse
from flask_sse.testing import harness, open_stream
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until

MakeApp = Callable[..., Flask]


class Sent(NamedTuple):
    """A signal that has been received."""

    name: str
    values: dict[str, Any]
    thread: str


class Log:
    """Receives all signals of an application."""

    def __init__(self, app: Flask, stack: ExitStack) -> None:
        self.app = app
        self.sent: list[Sent] = []
        for name in signals.__all__:
            signal: NamedSignal = getattr(signals, name)
            stack.enter_context(signal.connected_to(self._receiver(name), app))

    def _receiver(self, name: str) -> Callable[..., None]:
        def receive(sender: Flask, **values: Any) -> None:
            assert sender is self.app
            assert current_app == sender
            self.sent.append(Sent(name, values, threading.current_thread().name))

        return receive

    def of(self, *names: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the received ones of these signals, in order."""
        return [(sent.name, sent.values) for sent in self.sent if sent.name in names]

    def wait(self, name: str, number: int = 1) -> list[dict[str, Any]]:
        """Wait until a signal was sent this many times; return its values."""
        wait_until(lambda: len(self.of(name)) >= number, f"{name} is sent")
        return [values for _, values in self.of(name)]


@pytest.fixture
def log_of() -> Iterator[Callable[[Flask], Log]]:
    """Return a function that logs all signals of an application, until the test ends."""
    with ExitStack() as stack:
        yield lambda app: Log(app, stack)


def test_a_stream_that_is_read_by_the_server(
    make_app: MakeApp, log_of: Callable[[Flask], Log]
) -> None:
    """There are two signals for each client: at the start of its stream, and at its end."""
    app = make_app()
    log = log_of(app)
    with harness(app) as tested:
        with open_stream(app, "one") as stream, app.app_context():
            sse.publish("x", channel="one")
            sse.publish("x", channel="one")
            assert [stream.get(), stream.get()] == [Message("x")] * 2
        tested.open("two")
    expected = len(":\n") + 2 * len("data:x\n\n")
    names = ("client_connected", "client_gone")
    (_, first), (_, gone), (_, second), (_, other) = log.of(*names)
    assert first == {"channel": "one", "channels": ("one",), "client": None}
    assert gone.pop("duration") >= 0
    assert gone == first | {"reason": "client", "events_sent": 2, "bytes_sent": expected}
    assert second == {"channel": "two", "channels": ("two",), "client": None}
    assert (other["channel"], other["events_sent"], other["bytes_sent"]) == ("two", 0, 2)


def test_who_the_client_is(make_app: MakeApp, log_of: Callable[[Flask], Log]) -> None:
    """Signals of a stream have the value that the application set for its request."""
    blueprint = ServerSentEventsBlueprint("sse", __name__, url_prefix="/own")
    blueprint.add_url_rule("", view_func=blueprint.stream, endpoint="stream")

    @blueprint.before_request
    def note_user() -> None:
        g.sse_client = "alice"

    app = Flask("tests")
    app.register_blueprint(blueprint)
    log = log_of(app)
    with harness(app) as tested:
        tested.open()
    assert [values["client"] for _, values in log.of("client_connected", "client_gone")] == [
        "alice",
        "alice",
    ]


def test_messages(make_app: MakeApp, log_of: Callable[[Flask], Log]) -> None:
    """A message causes a signal when it is published, in that thread, and when it is delivered."""
    app = make_app()
    log = log_of(app)
    with harness(app) as tested:
        streams = [tested.open("one"), tested.open("one"), tested.open("two")]
        with app.app_context():
            assert sse.publish({"n": 1}, type="t", channel="one") == 1
            assert log.of("message_published") == [
                (
                    "message_published",
                    {"channel": "one", "message": Message({"n": 1}, type="t"), "processes": 1},
                )
            ]
            assert sse.publish("x", channel="nobody") == 0
        assert streams[0].get() == streams[1].get()
        [delivered] = log.wait("messages_delivered")
    assert 0 <= delivered.pop("duration") < 5
    assert delivered == {
        "channel": "one",
        "messages": 1,
        "listeners": 2,
        "lagging": 0,
        "replayed": False,
    }
    assert {sent.thread for sent in log.sent if sent.name == "message_published"} == {"MainThread"}
    assert {sent.thread for sent in log.sent if sent.name != "message_published"} == {
        "flask-sse-signals"
    }


def test_messages_of_a_history(make_app: MakeApp, log_of: Callable[[Flask], Log]) -> None:
    """Missed messages are reported as replayed, and counted for the client."""
    app = make_app(SSE_HISTORY=10)
    log = log_of(app)
    with harness(app) as tested:
        stream = tested.open()
        with app.app_context():
            for number in range(3):
                sse.publish(number)
        assert stream.get().type == "sse.open"
        first, _, _ = (stream.get() for _ in range(3))
        with open_stream(app, last_event_id=str(first.id)) as resumed:
            assert [resumed.get().json for _ in range(3)][1:] == [1, 2]
    replayed = [values for _, values in log.of("messages_delivered") if values["replayed"]]
    assert [(values["messages"], values["listeners"]) for values in replayed] == [(2, 1)]
    assert [values["events_sent"] for _, values in log.of("client_gone")] == [2, 3]


def test_a_client_that_gets_no_stream(make_app: MakeApp, log_of: Callable[[Flask], Log]) -> None:
    """A client at the limit is refused, and has neither connected nor gone."""
    app = make_app(SSE_MAX_CLIENTS=1)
    log = log_of(app)
    with harness(app) as tested:
        tested.open("one")
        tested.open("two")
    assert log.of("client_refused") == [
        (
            "client_refused",
            {"channel": "two", "channels": ("two",), "client": None, "reason": "full"},
        )
    ]
    assert [values["channel"] for _, values in log.of("client_connected", "client_gone")] == [
        "one",
        "one",
    ]


def test_a_client_that_is_slow(
    make_app: MakeApp, redis_url: str, log_of: Callable[[Flask], Log], channel: str
) -> None:
    """A client for which too much data waits is gone for that reason."""
    app = make_app(REDIS_URL=redis_url, SSE_MAX_PENDING=100)
    log = log_of(app)
    with open_stream(app, channel) as stream:
        with app.app_context():
            sse.publish("x" * 60, channel=channel)
            log.wait("messages_delivered")
            sse.publish("x" * 60, channel=channel)
            log.wait("messages_delivered", 2)
        with pytest.raises(EOFError):
            stream.get()
    assert [values["reason"] for values in log.wait("client_gone")] == ["overflow"]


class Ending(ServerSentEventsBlueprint):
    """Yields one message, and then ends or fails, as the channel says."""

    def messages(self, channel: str = "sse") -> Any:
        """Yield a message."""
        if channel == "away":
            yield from super().messages(channel)
        yield Message("x")
        if channel == "failing":
            raise ZeroDivisionError


@pytest.mark.parametrize(("channel", "reason"), [("ending", "end"), ("failing", "error")])
def test_overridden_messages(
    make_app: MakeApp, log_of: Callable[[Flask], Log], channel: str, reason: str
) -> None:
    """The end of an application's own generator is reported with its reason."""
    ending = Ending("ending", __name__, url_prefix="/ending")
    ending.add_url_rule("", view_func=ending.stream)
    app = make_app()
    app.register_blueprint(ending)
    log = log_of(app)
    with harness(app) as tested:
        stream = tested.open(channel, url="/ending")
        assert list(stream) == [Message("x")]
    (_, gone) = log.of("client_connected", "client_gone")[1]
    assert (gone["reason"], gone["events_sent"], gone["channel"]) == (reason, 1, channel)
    assert gone["bytes_sent"] == len(":\n") + len("data:x\n\n")


def test_overridden_messages_that_get_no_stream(
    make_app: MakeApp, log_of: Callable[[Flask], Log]
) -> None:
    """At the limit, or without Redis, clients are refused; an open stream has gone."""
    ending = Ending("ending", __name__, url_prefix="/ending")
    ending.add_url_rule("", view_func=ending.stream)
    app = make_app(SSE_MAX_CLIENTS=1, REDIS_URL="redis://127.0.0.1:1")
    app.register_blueprint(ending)
    log = log_of(app)
    with harness(app) as tested:
        stream = tested.open("away", url="/ending")
        assert list(tested.open("away", url="/ending")) == []
        assert log.wait("client_refused")[0]["reason"] == "full"
        with pytest.raises(TimeoutError):
            stream.get(0)
    assert log.wait("client_gone")[0]["reason"] == "client"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flask_sse._streaming.messages.CONFIRM_WITHIN", 0.1)
        with open_stream(app, "away", url="/ending") as refused:
            assert list(refused) == []
    assert log.wait("client_refused", 2)[1]["reason"] == "redis"
    assert len(log.of("client_gone")) == 1


def test_an_outage(
    make_app: MakeApp, redis_server: RedisServer, log_of: Callable[[Flask], Log]
) -> None:
    """A loss of Redis is reported once, and so is its return."""
    app = make_app(REDIS_URL=redis_server.url)
    log = log_of(app)
    with open_stream(app, "x") as stream:
        redis_server.stop()
        [lost] = log.wait("redis_lost")
        assert isinstance(lost["error"], Exception)
        redis_server.start()
        [regained] = log.wait("redis_regained")
        assert regained["attempts"] >= 1
        assert regained["duration"] > 0
        with app.app_context():
            sse.publish("back", channel="x")
        assert stream.get() == Message("back")
    names = [name for name, _ in log.of("redis_lost", "redis_regained")]
    assert names == ["redis_lost", "redis_regained"]


def test_no_redis_at_all(
    make_app: MakeApp, log_of: Callable[[Flask], Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that gets no subscription is refused, after the loss was reported."""
    monkeypatch.setattr("flask_sse._streaming.event_stream.CONFIRM_WITHIN", 0.1)
    app = make_app(REDIS_URL="redis://127.0.0.1:1")
    log = log_of(app)
    with open_stream(app, "x") as stream, pytest.raises(EOFError):
        stream.get()
    assert [values["reason"] for values in log.wait("client_refused")] == ["redis"]
    assert log.of("client_connected", "client_gone") == []


def test_receivers_that_fail(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged, the publisher does not get it, and other receivers run."""
    app = make_app()
    received: list[str] = []

    def fail(_: Flask, **values: object) -> None:
        raise ZeroDivisionError

    def note(_: Flask, *, channel: str, **values: object) -> None:
        received.append(channel)

    with ExitStack() as stack, harness(app) as tested:
        for signal in (signals.message_published, signals.client_connected):
            stack.enter_context(signal.connected_to(fail, app))
            stack.enter_context(signal.connected_to(note, app))
        stream = tested.open("x")
        with app.app_context():
            assert sse.publish("hello", channel="x") == 1
        assert stream.get() == Message("hello")
    assert received == ["x", "x"]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert {error.getMessage() for error in errors} == {
        "a receiver of the signal client-connected has failed",
        "a receiver of the signal message-published has failed",
    }
    assert all(error.exc_info for error in errors)


def test_receivers_that_are_slow(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams continue in the meantime; the number of waiting signals is limited, in order."""
    monkeypatch.setattr("flask_sse._callbacks.receivers._MOST_WAITING", 4)
    app = make_app()
    may_go_on = threading.Event()
    received: list[str] = []

    def wait(_: Flask, *, channel: str, **values: object) -> None:
        may_go_on.wait(PATIENCE)
        received.append(channel)

    with signals.client_connected.connected_to(wait, app), harness(app) as tested:
        for number in range(10):
            stream = tested.open(str(number))
            with app.app_context():
                sse.publish(number, channel=str(number))
            assert stream.get().json == number
        may_go_on.set()
    assert received == [str(number) for number in range(len(received))]
    assert 4 <= len(received) <= 5
    assert "signal receivers are too slow: dropped signal number 1" in caplog.text


def test_receivers_may_use_the_application(make_app: MakeApp) -> None:
    """A receiver has an application context of its own, so it may publish, and no request."""
    app = make_app()

    def announce(_: Flask, *, channel: str, **values: object) -> None:
        assert not has_request_context()
        sse.publish(f"somebody listens to {channel}")

    with harness(app) as tested:
        stream = tested.open()
        with signals.client_connected.connected_to(announce, app):
            tested.open("x")
            assert stream.get() == Message("somebody listens to x")


def test_signals_of_another_application(make_app: MakeApp) -> None:
    """A receiver for one application gets no signals of another; a receiver for all gets both."""
    one, other = make_app(), make_app()
    of_one: list[Flask] = []
    of_all: list[Flask] = []

    def note_one(sender: Flask, **values: object) -> None:
        of_one.append(sender)

    def note_all(sender: Flask, **values: object) -> None:
        of_all.append(sender)

    with (
        signals.client_gone.connected_to(note_one, one),
        signals.client_gone.connected_to(note_all),
        harness(one) as tested_one,
        harness(other) as tested_other,
    ):
        tested_one.open()
        tested_other.open()
    assert of_one == [one]
    assert sorted(map(id, of_all)) == sorted([id(one), id(other)])


def test_nobody_listens(make_app: MakeApp) -> None:
    """Without receivers there is no thread, and nothing waits for one."""
    # A thread of an earlier test may linger.
    before = {*threading.enumerate()}
    app = make_app()
    with harness(app) as tested:
        stream = tested.open()
        with app.app_context():
            sse.publish("x")
        assert stream.get() == Message("x")
        started = {*threading.enumerate()} - before
        assert "flask-sse-signals" not in {thread.name for thread in started}
