"""`SSE_MAX_AGE`: each stream ends in time, with everything that waited for its client."""

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from flask_sse import Message, ServerSentEventsBlueprint, signals, sse
from flask_sse._streaming.admission import UNLIMITED, Admission
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wsgi import LocalStream, open_stream, pieces_of

MakeApp = Callable[..., Flask]


class Shouting(ServerSentEventsBlueprint):
    """A blueprint that overrides `messages`."""

    is_endless = False

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Pass the messages on; or yield some without a subscription, all the time."""
        while self.is_endless:
            time.sleep(0.01)
            yield Message("now")
        for message in super().messages(channel):
            yield Message(message.data.upper())


def subscribers(app: Flask, channel: str) -> int:
    """Return how many processes are subscribed."""
    with app.app_context():
        ((_, number),) = sse.redis.pubsub_numsub(channel)
    return int(number)


def read_to_the_end(stream: LocalStream) -> None:
    """Read until the stream has ended."""
    while stream.read():
        pass


@pytest.fixture
def gone(make_app: MakeApp, any_redis_url: str) -> Iterator[tuple[Flask, list[dict[str, Any]]]]:
    """Return an application whose streams last for a second, and the reasons of their ends."""
    app = make_app(REDIS_URL=any_redis_url, SSE_MAX_AGE=1)
    found: list[dict[str, Any]] = []

    def note(sender: Flask, **values: Any) -> None:
        found.append(values)

    with signals.client_gone.connected_to(note, app):
        yield app, found


def test_each_stream_ends(gone: tuple[Flask, list[dict[str, Any]]], channel: str) -> None:
    """It ends after 80 to 100 % of its age; its client gets what was published until then."""
    app, found = gone
    begin = time.monotonic()
    with app.app_context(), open_stream(app, channel) as stream:
        sse.publish("hello", channel=channel)
        read_to_the_end(stream)
        assert 0.8 <= time.monotonic() - begin < 30
        assert [event.data for event in stream.parser.events] == ["hello"]
    wait_until(lambda: found, "the signal is sent")
    (values,) = found
    assert values["reason"] == "age"
    assert values["events_sent"] == 1
    assert 0 < values["duration"] < 30
    with open_stream(app, channel) as stream:
        assert stream.first == b":\n"


def test_a_stream_that_is_read_slowly(
    gone: tuple[Flask, list[dict[str, Any]]], channel: str
) -> None:
    """It has ended for the hub, and what waited is still there."""
    app, _ = gone
    with app.app_context(), open_stream(app, channel) as stream:
        for number in range(3):
            assert sse.publish(number, channel=channel) == 1
        wait_until(lambda: sse.publish("late", channel=channel) == 0, "nobody is subscribed")
        read_to_the_end(stream)
        data = [event.data for event in stream.parser.events]
        assert data[:3] == ["0", "1", "2"]
        assert set(data[3:]) <= {"late"}


def test_generators_of_the_application(make_app: MakeApp, redis_url: str, channel: str) -> None:
    """`messages()` that code calls has no age: it outlives a stream that has begun later."""
    app = make_app(REDIS_URL=redis_url, SSE_MAX_AGE=1)
    with app.app_context(), ThreadPoolExecutor() as pool:
        messages = sse.messages(channel)
        heard = pool.submit(next, messages)
        wait_until(lambda: subscribers(app, channel) == 1, "it is subscribed")
        with open_stream(app, "another") as stream:
            read_to_the_end(stream)
        assert sse.publish("hello", channel=channel) == 1
        assert heard.result(PATIENCE).data == "hello"
        messages.close()


@pytest.mark.parametrize("is_endless", [False, True], ids=["subscribed", "endless"])
def test_an_overridden_generator(*, any_redis_url: str, is_endless: bool) -> None:
    """Its stream ends in the same way, whatever the generator does, and so does the generator."""
    blueprint = Shouting("sse", __name__)
    blueprint.is_endless = is_endless
    blueprint.add_url_rule("", endpoint="stream", view_func=blueprint.stream)
    app = Flask("tests")
    app.config.update(REDIS_URL=any_redis_url, SSE_MAX_AGE=1)
    app.register_blueprint(blueprint, url_prefix="/stream")
    found: list[str] = []

    def note(sender: Flask, *, reason: str, **extra: Any) -> None:
        found.append(reason)

    begin = time.monotonic()
    with (
        signals.client_gone.connected_to(note, app),
        app.test_client().get("/stream") as response,
    ):
        stream = LocalStream(pieces_of(response))
        read_to_the_end(stream)
        assert 0.8 <= time.monotonic() - begin < 30
        assert {event.data for event in stream.parser.events} == ({"now"} if is_endless else set())
    wait_until(lambda: found, "the signal is sent")
    assert found == ["age"]


def test_the_ends_are_spread() -> None:
    """Clients that have come together don't all come back together, and none stays too long."""
    ends = [Admission(max_age=100.0).end_by(1000.0) for _ in range(1000)]
    times = sorted(end for end in ends if end is not None)
    assert len(times) == 1000
    assert 1080 <= times[0] < 1083
    assert 1097 < times[-1] <= 1100
    assert 1088 < times[500] < 1092
    assert UNLIMITED.end_by(1000.0) is None
