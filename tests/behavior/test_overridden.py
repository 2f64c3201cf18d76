"""A subclass that overrides `messages`: the stream sends its messages, as in 1.0."""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask, Response, request

from flask_sse import Message, ServerSentEventsBlueprint
from tests.support import servers
from tests.support.client import StreamClient
from tests.support.parser import Event
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wsgi import LocalStream, pieces_of

Generate = Callable[[Generator[Message, None, None]], Generator[Message, None, None]]


class Overridden(ServerSentEventsBlueprint):
    """A blueprint whose messages pass through a function of the test's."""

    generate: Generate

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Pass the messages through."""
        yield from self.generate(super().messages(channel))


@contextmanager
def open_stream(app: Flask) -> Iterator[LocalStream]:
    """Open the stream of the subclass."""
    with app.test_client().get("/stream?channel=over") as response:
        yield LocalStream(pieces_of(response))


@pytest.fixture
def make(any_redis_url: str) -> Callable[..., tuple[Flask, Overridden]]:
    """Return a function that makes an application with such a blueprint."""

    def make_app(generate: Generate, **config: object) -> tuple[Flask, Overridden]:
        blueprint = Overridden("sse", __name__)
        blueprint.generate = generate
        blueprint.add_url_rule("", endpoint="stream", view_func=blueprint.stream)
        app = Flask("tests")
        app.config.update({"REDIS_URL": any_redis_url, "SSE_KEEPALIVE": 0.2, **config})
        app.register_blueprint(blueprint, url_prefix="/stream")
        return app, blueprint

    return make_app


Make = Callable[..., tuple[Flask, Overridden]]


def publish(app: Flask, blueprint: Overridden, data: object) -> None:
    """Publish to the channel of the tests."""
    with app.app_context():
        assert blueprint.publish(data, channel="over") == 1


def test_the_stream_sends_what_the_generator_yields(make: Make) -> None:
    """It may change, add and leave out messages, and use the request as in 1.0."""

    def generate(
        messages: Generator[Message, None, None],
    ) -> Generator[Message, None, None]:
        yield Message(f"hello {request.args['channel']}", type="welcome")
        for message in messages:
            if message.data != "secret":
                yield Message(message.data.upper(), type=message.type)

    app, blueprint = make(generate)
    with open_stream(app) as stream:
        assert stream.events(1) == [Event("welcome", "hello over", "")]
        wait_until(lambda: _publish_quietly(app, blueprint, "first"), "subscribed")
        publish(app, blueprint, "secret")
        publish(app, blueprint, "second")
        assert [event.data for event in stream.events(3)[1:]] == ["FIRST", "SECOND"]


def _publish_quietly(app: Flask, blueprint: Overridden, data: str) -> bool:
    with app.app_context():
        return blueprint.publish(data, channel="over") == 1


def test_nothing_is_missed_after_the_first_bytes(make: Make) -> None:
    """The stream opens when Redis has confirmed the generator's subscription."""
    app, blueprint = make(lambda messages: messages)
    for number in range(20):
        with open_stream(app) as stream:
            publish(app, blueprint, str(number))
            assert stream.events(1)[0].data == str(number)


def test_finally_runs_when_the_client_has_gone(make: Make) -> None:
    """The generator ends with the stream, even if nothing is published."""
    finished = threading.Event()

    def generate(
        messages: Generator[Message, None, None],
    ) -> Generator[Message, None, None]:
        try:
            yield from messages
        finally:
            finished.set()

    app, _ = make(generate)
    with open_stream(app) as stream:
        assert stream.read() == b":\n", "a comment, after a while of silence"
        assert not finished.is_set()
    assert finished.wait(PATIENCE)
    wait_until(
        lambda: not any(t.name == "flask-sse-messages" for t in threading.enumerate()),
        "the thread has ended",
    )


def test_a_generator_that_fails_ends_its_stream_alone(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged, and the stream ends."""

    def generate(
        messages: Generator[Message, None, None],
    ) -> Generator[Message, None, None]:
        yield Message("first")
        raise ZeroDivisionError("of the application's")

    app, _ = make(generate)
    with open_stream(app) as stream:
        assert stream.events(1)[0].data == "first"
        while piece := stream.read():
            assert piece == b":\n", "nothing but comments"
    assert "ZeroDivisionError: of the application's" in caplog.text


def test_without_redis_the_client_is_told_to_come_back(
    make: Make, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage does not cause a 500, after which browsers would give up."""
    monkeypatch.setattr("flask_sse._streaming.messages.CONFIRM_WITHIN", 0.2)
    redis_server.stop()
    app, _ = make(lambda messages: messages, REDIS_URL=redis_server.url)
    with open_stream(app) as stream:
        assert stream.first.startswith(b"retry:")
        assert stream.read() == b""


def test_places_are_given_back(make: Make) -> None:
    """Such streams count towards `SSE_MAX_CLIENTS`, but only while they are open."""
    app, _ = make(lambda messages: messages, SSE_MAX_CLIENTS=1)
    for _ in range(3):
        with open_stream(app) as stream:
            assert stream.first == b":\n"
            with open_stream(app) as surplus:
                assert surplus.first.startswith(b"retry:")


@pytest.mark.parametrize("worker", servers.WORKERS)
def test_under_gunicorn(worker: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """Events arrive, everything ends when a client has left, and an error is answered with 500."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_KEEPALIVE": 0.3}
    app = "tests.apps.overridden:app"
    with servers.gunicorn(tmp_path, *servers.WORKERS[worker], app=app, settings=settings) as site:
        with StreamClient(site.port, "over").open(30) as client:
            assert shared_redis.admin.publish("over", '{"data": "x"}') == 1
            assert client.wait_events(1, 30)[0].data == "counted 1: x"
            client.wait_comments(client.parser.comments + 3, 30)
            assert "torn down" not in site.log()
        wait_until(lambda: "application torn down" in site.log(), "torn down", 30)
        shared_redis.wait_listeners(0, "over")
        assert "Traceback" not in site.log()
        with StreamClient(site.port, "fails").read_headers(30) as client:
            assert client.status == 500
        wait_until(lambda: site.log().count("application torn down") == 2, "torn down", 30)
        lines = [line for line in site.log().splitlines() if line.startswith("overridden: ")]
        assert lines == [
            "overridden: finished over",
            "overridden: request torn down, over",
            "overridden: application torn down, over",
            "overridden: request torn down, fails",
            "overridden: application torn down, fails",
        ]
        assert site.log().count("Traceback") == 1


def test_functions_given_to_call_on_close(make: Make) -> None:
    """They run once, when the stream has ended."""
    app, _ = make(lambda messages: messages)
    closed: list[str] = []

    @app.after_request
    def note(response: Response) -> Response:
        response.call_on_close(lambda: closed.append("closed"))
        return response

    response = app.test_client().get("/stream?channel=over")
    assert next(pieces_of(response)) == b":\n"
    assert closed == []
    response.close()
    response.close()
    assert closed == ["closed"]


def test_a_generator_of_its_own_is_not_waited_for(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream whose generator never subscribes opens after a while, and sends what it yields."""
    monkeypatch.setattr("flask_sse._streaming.overridden.CONFIRM_WITHIN", 0.2)
    may_yield = threading.Event()

    def generate(
        messages: Generator[Message, None, None],
    ) -> Generator[Message, None, None]:
        may_yield.wait(PATIENCE)
        yield Message("late")

    app, _ = make(generate)
    with open_stream(app) as stream:
        assert stream.first == b":\n"
        may_yield.set()
        assert stream.events(1)[0].data == "late"
