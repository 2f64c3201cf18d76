"""The phases of a stream that the server reads, without a server and without Redis."""

from collections.abc import Iterator
from functools import partial

import pytest
from flask import Flask

from flask_sse._hub.hub import Hub
from flask_sse._redis.pubsub import PubSubConnection
from flask_sse._redis.server_subscription import ServerSubscription
from flask_sse._settings import Settings
from flask_sse._streaming.event_stream import EventStream, Streams
from flask_sse._streaming.feed import Feed
from flask_sse._streaming.servers import ServerFacts


@pytest.fixture
def streams() -> Streams:
    """Return the state of an application that has a place for one stream."""
    return Streams(Settings.from_config({"SSE_MAX_CLIENTS": 1}))


@pytest.fixture
def stream(streams: Streams) -> Iterator[EventStream]:
    """Return a stream whose hub can't connect to Redis."""

    def refuse() -> PubSubConnection:
        raise OSError("no connection")

    hub = Hub(partial(ServerSubscription, refuse), Flask("tests").json)
    yield EventStream(hub, Feed(b"x", is_logged=False), streams, ServerFacts.of({}))
    hub.rest(5)


def test_a_stream_that_is_never_read(streams: Streams, stream: EventStream) -> None:
    """It takes no place, and calls its functions once."""
    calls: list[None] = []
    stream.call_on_close(lambda: calls.append(None))
    assert repr(stream) == "<EventStream new>"
    for _ in range(2):
        stream.close()
        assert repr(stream) == "<EventStream ended>"
        assert stream.read() == b""
    assert len(calls) == 1
    assert streams.places.take() is not None


def test_a_stream_without_a_place(streams: Streams, stream: EventStream) -> None:
    """Its client is told when to reconnect, and its end frees no place."""
    assert streams.places.take() is not None
    assert stream.read().startswith(b"retry:")
    assert repr(stream) == "<EventStream rejected>"
    assert stream.read() == b""
    stream.close()
    assert repr(stream) == "<EventStream ended>"
    assert streams.places.take() is None


def test_a_stream_whose_subscription_fails(
    streams: Streams, stream: EventStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client is told the same, and its place is free again."""
    monkeypatch.setattr("flask_sse._streaming.event_stream.CONFIRM_WITHIN", 0.0)
    assert stream.read().startswith(b"retry:")
    assert repr(stream) == "<EventStream rejected>"
    assert streams.places.take() is not None
    stream.close()
    assert streams.places.take() is None
