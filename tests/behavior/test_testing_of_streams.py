"""`flask_sse.testing` and streams whose channels a view chooses."""

import threading
from collections.abc import Callable, Iterator
from itertools import islice

import pytest
from flask import Flask, Response, request

from _flask_sse_pytest import sse_harness
from flask_sse import Message, presence, sse, streams
from flask_sse.testing import Harness, open_stream

__all__ = ["sse_harness"]
"""The fixture, which pytest finds here as it does if the package is installed."""


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Check that every test ends with the same threads as it began."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def tested(sse_harness: Callable[[Flask], Harness]) -> Harness:
    """Return the harness of an application whose view chooses the channels, and no other."""
    app = Flask("tests")
    app.config["SSE_HISTORY"] = {"news": 10, "job.*": 10}

    @app.get("/events/<channels>")
    def events(channels: str) -> Response:
        age = request.args.get("age", type=float)
        return streams.stream(channels.split(","), client="alice", max_age=age)

    @app.get("/watch/<channel>")
    def watch(channel: str) -> Response:
        return streams.stream([channel])

    return sse_harness(app)


def publish(tested: Harness, *channels: str) -> None:
    """Publish the name of each channel to it."""
    with tested.app.app_context():
        for channel in channels:
            sse.publish(channel, channel=channel)


@pytest.mark.parametrize("number", range(3))
def test_presence(tested: Harness, number: int) -> None:
    """A client is a member once its stream is open, and has left once its block has ended."""
    del number
    app = tested.app
    app.config["SSE_PRESENCE"] = ["room"]
    watcher = tested.open(url="/watch/room")
    with app.app_context():
        with open_stream(app, url="/events/room") as alice:
            assert presence.members("room")["alice"].streams == 1
            sse.publish("Hello!", channel="room")
            assert [alice.get().type, alice.get().data] == ["sse.join", "Hello!"]
            with open_stream(app, url="/events/room"):
                assert presence.members("room")["alice"].streams == 2
        assert presence.members("room") == {}
    kinds = ["sse.join", None, "sse.leave"]
    assert [watcher.get().type for _ in kinds] == kinds
    assert [message.type for _, message in tested.published] == kinds


def test_several_channels(tested: Harness) -> None:
    """Events of all channels arrive, and a stream with other channels continues after them."""
    stream = tested.open(url="/events/news,job.7,clock")
    assert stream.channels == {"news": False, "job.7": False, "clock": None}
    assert stream.get().json == {"channels": dict(stream.channels), "recovered": False}
    publish(tested, "news", "clock", "job.7")
    assert sorted(message.data for message in islice(stream, 3)) == ["clock", "job.7", "news"]
    publish(tested, "news", "job.7", "job.8")
    again = tested.open(url="/events/job.8,news", last_event_id=stream.last_event_id)
    assert again.channels == {"job.8": False, "news": True}
    assert [message.data for message in islice(again, 2)][1] == "news"
    publish(tested, "job.8")
    assert again.get().data == "job.8"


def test_a_position(tested: Harness) -> None:
    """A stream opens with the position that a page was rendered with."""
    with tested.app.app_context():
        position = streams.position(["news", "job.7"])
    publish(tested, "news", "job.7")
    stream = tested.open(url="/events/news,job.7", last_event_id=position)
    assert stream.channels == {"news": True, "job.7": True}
    assert {message.data for message in islice(stream, 1, 3)} == {"news", "job.7"}


def test_channels_without_history(tested: Harness) -> None:
    """Without `sse.open`, there is nothing to say about the channels."""
    stream = tested.open(url="/events/clock,weather")
    assert stream.channels == {}
    publish(tested, "weather")
    assert stream.get() == Message("weather")


def test_the_end_of_a_channel(tested: Harness) -> None:
    """The end is a message; the stream ends with its last channel, and is not opened again."""
    stream = tested.open(url="/events/news,job.7")
    publish(tested, "job.7")
    with tested.app.app_context():
        streams.end("job.7")
        assert [message.type for message in islice(stream, 3)] == ["sse.open", None, "sse.end"]
        assert stream.ended == {"job.7"}
        publish(tested, "news")
        assert stream.get().data == "news"
        streams.end("news")
    assert [message.json for message in stream] == [{"channel": "news"}]
    assert stream.ended == {"job.7", "news"}
    with pytest.raises(AssertionError, match="answered 204 NO CONTENT, which tells an EventSource"):
        tested.open(url="/events/news,job.7", last_event_id=stream.last_event_id)


def test_the_age_of_a_stream(tested: Harness) -> None:
    """A stream that has reached its age ends, and the next one continues."""
    with tested.app.app_context():
        position = streams.position(["news"])
    stream = tested.open(url="/events/news?age=0.1", last_event_id=position)
    # If this machine is slow, the stream may end before it has begun.
    assert {message.type for message in stream} <= {"sse.open"}
    publish(tested, "news")
    last_id = stream.last_event_id or position
    again = tested.open(url="/events/news", last_event_id=last_id)
    assert again.channels == {"news": True}
    assert [message.data for message in islice(again, 1, 2)] == ["news"]


def test_a_client_that_is_disconnected(tested: Harness) -> None:
    """The streams of the client end, and those of others do not."""
    stream = tested.open(url="/events/news,clock")
    publish(tested, "news")
    assert [message.type for message in islice(stream, 2)] == ["sse.open", None]
    with tested.app.app_context():
        assert streams.disconnect(client="bob") == 1
        publish(tested, "clock")
        assert stream.get().data == "clock"
        assert streams.disconnect(client="alice", channel="clock") == 1
    assert [*stream] == []
    with pytest.raises(EOFError, match="the stream has ended after 3 messages"):
        stream.get()
