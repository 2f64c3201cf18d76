"""Streams whose channels a view has chosen: what they begin with, and how they resume."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import pytest
from flask import Flask, Response, request

from flask_sse import ServerSentEventsBlueprint, history, sse, streams
from tests.support.parser import Event
from tests.support.wsgi import LocalStream, pieces_of

MakeApp = Callable[..., Flask]

PATTERNS: Final = {"*.logged": 100, "*.few": 3, "*.latest": "latest"}


@pytest.fixture
def app(make_app: MakeApp, any_redis_url: str) -> Flask:
    """Return an application with a view of several channels, on each kind of Redis."""
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY=PATTERNS)

    @app.get("/events")
    def events() -> Response:
        return streams.stream(request.args.getlist("name"))

    return app


@contextmanager
def opened(app: Flask, *names: str, last_id: str = "", **query: str) -> Iterator[LocalStream]:
    """Open a stream of several channels."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    query_string = {"name": names, **query}
    with app.test_client().get("/events", query_string=query_string, headers=headers) as response:
        assert response.status_code == 200
        yield LocalStream(pieces_of(response))


def publish(app: Flask, channel: str, *numbers: int) -> None:
    """Publish some numbers."""
    with app.app_context():
        for number in numbers:
            sse.publish(number, channel=channel)


def position(app: Flask, *names: str) -> str:
    """Return the newest position of some channels."""
    with app.app_context():
        return streams.position(names)


def numbers(events: Sequence[Event]) -> list[int]:
    """Return the data of the published events."""
    return [int(event.data) for event in events if event.type == "message"]


def test_the_beginning(app: Flask, channel: str) -> None:
    """The first event names all channels, once, and where they are."""
    logged, latest, plain = (f"{channel}.{kind}" for kind in ("logged", "latest", "plain"))
    publish(app, logged, 1)
    publish(app, latest, 2, 3)
    with opened(app, plain, logged, latest, logged) as stream:
        first, newest = stream.take(2)
        assert first.type == "sse.open"
        assert json.loads(first.data) == {
            "channels": {latest: False, logged: False, plain: None},
            "recovered": False,
        }
        assert numbers([newest]) == [3]
        publish(app, plain, 4)
        publish(app, logged, 5)
        events = stream.take(2)
    assert sorted(numbers(events)) == [4, 5]
    assert events[-1].id == position(app, logged, latest)


def test_channels_without_history(app: Flask, channel: str) -> None:
    """The stream has no events of its own then, and the events keep their ids."""
    one, two = f"{channel}.one", f"{channel}.two"
    with opened(app, one, two) as stream:
        assert stream.first.startswith(b":\n")
        with app.app_context():
            sse.publish("x", id="7", channel=one)
            assert stream.take(1) == [Event("message", "x", "7")]
            sse.publish("y", channel=two)
            assert stream.take(1) == [Event("message", "y", "7")]


def test_ids_from_elsewhere_do_not_replace_positions(app: Flask, channel: str) -> None:
    """An event without history has no id, if another channel has history."""
    logged, plain = f"{channel}.logged", f"{channel}.plain"
    with opened(app, logged, plain) as stream:
        [first] = stream.take(1)
        with app.app_context():
            sse.publish("x", id="7", retry=5, channel=plain)
        assert stream.take(1) == [Event("message", "x", first.id)]


def test_each_channel_continues_where_it_was(app: Flask, channel: str) -> None:
    """Nothing is missing and nothing comes twice, also if the channels are others now."""
    a, b, c = (f"{channel}.{letter}.logged" for letter in "abc")
    for name in (a, b, c):
        publish(app, name, 0)
    with opened(app, a, b) as stream:
        stream.take(1)
        publish(app, a, 10)
        publish(app, b, 20)
        last_id = stream.take(2)[-1].id
    publish(app, a, 11, 12)
    publish(app, b, 21)
    publish(app, c, 30)
    with opened(app, c, b, a, last_id=last_id) as stream:
        first, *events = stream.take(4)
        assert json.loads(first.data) == {
            "channels": {a: True, b: True, c: False},
            "recovered": False,
        }
        assert sorted(numbers(events)) == [11, 12, 21]
        publish(app, c, 31)
        [newest] = stream.take(1)
        assert numbers([newest]) == [31]
    publish(app, b, 22)
    with opened(app, b, last_id=newest.id) as stream:
        first, event = stream.take(2)
        assert json.loads(first.data)["recovered"] is True
        assert numbers([event]) == [22]


def test_a_page_that_is_rendered_first(app: Flask, channel: str) -> None:
    """It gets what is published between its position and its stream."""
    a, b = (f"{channel}.{letter}.logged" for letter in "ab")
    before = position(app, a, b)
    publish(app, b, 1)
    publish(app, a, 2)
    with opened(app, a, b, last_event_id=before) as stream:
        assert sorted(numbers(stream.take(3))) == [1, 2]


def test_a_position_of_one_channel(app: Flask, channel: str) -> None:
    """It is enough for a stream of that channel, and for no other."""
    a, b = (f"{channel}.{letter}.logged" for letter in "ab")
    with app.app_context():
        before = history.position(a)
    publish(app, a, 1)
    with opened(app, a, last_id=before) as stream:
        first, event = stream.take(2)
        assert json.loads(first.data) == {"channels": {a: True}, "recovered": True}
        assert numbers([event]) == [1]
    with opened(app, a, b, last_id=before) as stream:
        first, *resets = stream.take(3)
        assert json.loads(first.data)["recovered"] is False
        assert [json.loads(event.data)["channel"] for event in resets] == [a, b]


def test_a_gap_is_told_for_its_channel_only(app: Flask, channel: str) -> None:
    """The other channels continue exactly."""
    few, logged = f"{channel}.few", f"{channel}.logged"
    last_id = position(app, few, logged)
    publish(app, few, *range(10, 20))
    publish(app, logged, 1)
    with opened(app, few, logged, last_id=last_id) as stream:
        first, *others = stream.take(3)
        assert json.loads(first.data)["channels"] == {few: False, logged: True}
        [reset] = [event for event in others if event.type == "sse.reset"]
        said = json.loads(reset.data)
        assert (said["channel"], said["reason"]) == (few, "the log no longer goes back that far")
        assert numbers(others) == [1]
        publish(app, few, 20)
        assert numbers(stream.take(1)) == [20]


@pytest.mark.parametrize(
    "last_id", ["nonsense", "1-", "0-AAAAA", "1-AAAAA-AAAAA", "1" + "-AAAAAaaaaaaa" * 65]
)
def test_an_id_that_is_none(app: Flask, channel: str, last_id: str) -> None:
    """Each channel says so."""
    a, b = (f"{channel}.{letter}.logged" for letter in "ab")
    publish(app, a, 1)
    with opened(app, a, b, last_id=last_id) as stream:
        first, *resets = stream.take(3)
        assert json.loads(first.data)["channels"] == {a: False, b: False}
        assert [event.type for event in resets] == ["sse.reset"] * 2
    with opened(app, a, b, last_id=first.id) as stream:
        # The connection was lost before the resets.
        _, *resets = stream.take(3)
        assert [event.type for event in resets] == ["sse.reset"] * 2
        publish(app, b, 2)
        assert numbers(stream.take(1)) == [2]


def test_the_documented_view_opens_one_channel(app: Flask, channel: str) -> None:
    """Checks that were written for 1.0 look at the first channel in the URL only."""
    public, secret = f"{channel}.public", f"{channel}.secret"
    url = f"/stream?channel={public}&channel={secret}"
    with app.test_client().get(url) as response:
        stream = LocalStream(pieces_of(response))
        assert stream.first
        publish(app, secret, 1)
        publish(app, public, 2)
        assert numbers(stream.take(1)) == [2]


def test_an_overridden_redis(make_app: MakeApp, redis_url: str, channel: str) -> None:
    """The streams of a blueprint are those of its Redis."""
    blueprint = ServerSentEventsBlueprint("own", __name__)
    app = make_app(REDIS_URL=redis_url, SSE_HISTORY=PATTERNS)

    @app.get("/events")
    def events() -> Response:
        return streams.stream([f"{channel}.logged"], blueprint=blueprint)

    with app.app_context():
        before = streams.position([f"{channel}.logged"], blueprint=blueprint)
    with app.test_client().get("/events") as response:
        assert LocalStream(pieces_of(response)).take(1)[0].id == before


@pytest.mark.parametrize(
    ("channels", "error", "words"),
    [
        ("news", TypeError, r"channels must be several names, such as \['news'\], not one"),
        (b"news", TypeError, "channels must be several names"),
        ([], ValueError, "channels must be 1 to 100 names, not 0"),
        ([str(number) for number in range(101)], ValueError, "1 to 100 names, not 101"),
        ([f"{number}.logged" for number in range(51)], ValueError, "at most 50 channels with"),
        ([None], TypeError, "channel must be a str, not None"),
        (["\ud800"], ValueError, "UTF-8"),
    ],
)
def test_channels_that_are_none(
    make_app: MakeApp, channels: list[str], error: type[Exception], words: str
) -> None:
    """The error names the value and the remedy."""
    app = make_app(REDIS_URL="memory://", SSE_HISTORY=PATTERNS)
    with app.test_request_context("/"):
        with pytest.raises(error, match=words):
            streams.stream(channels)
        with pytest.raises(error, match=words):
            streams.position(channels)


def test_a_position_needs_history(make_app: MakeApp) -> None:
    """Without it, there is nothing to come back to."""
    app = make_app(REDIS_URL="memory://")
    with app.app_context(), pytest.raises(ValueError, match="none of the channels has history"):
        streams.position(["a", "b"])
