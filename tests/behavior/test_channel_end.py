"""The end of a channel: what clients and consumers get, and what they get when they come back."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import pytest
import redis
from flask import Flask, Response, request

from flask_sse import Message, ServerSentEventsBlueprint, history, signals, sse, streams
from tests.support.parser import parse
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from tests.support.wsgi import LocalStream, pieces_of

MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp, any_redis_url: str) -> Flask:
    """Return an application that keeps 100 events, on each kind of Redis."""
    return with_view(make_app(REDIS_URL=any_redis_url, SSE_HISTORY={"plain*": 0, "*": 100}))


def with_view(app: Flask) -> Flask:
    """Add a view whose stream has several channels."""

    @app.get("/events")
    def events() -> Response:
        return streams.stream(request.args.getlist("name"))

    return app


def publish(app: Flask, channel: str, *data: object) -> None:
    """Publish some events."""
    with app.app_context():
        for one in data:
            sse.publish(one, channel=channel)


def end(app: Flask, channel: str) -> int:
    """End a channel."""
    with app.app_context():
        return streams.end(channel)


def position(app: Flask, channel: str) -> str:
    """Return the newest position of a channel."""
    with app.app_context():
        return history.position(channel)


@contextmanager
def opened(app: Flask, *names: str, last_id: str = "") -> Iterator[LocalStream]:
    """Open a stream of one channel in the documented view, or of several, up to its first event."""
    url, query = ("/stream", {"channel": names[0]}) if len(names) == 1 else ("/events", None)
    with app.test_client().get(
        url,
        query_string=query or {"name": [*names]},
        headers={"Last-Event-ID": last_id} if last_id else {},
    ) as response:
        assert response.status_code == 200
        stream = LocalStream(pieces_of(response))
        stream.events(1)
        yield stream


def rest(stream: LocalStream) -> list[str]:
    """Read a stream to its end; return the data of its events, and the types of ours."""
    while stream.read():
        pass
    return [event.data if event.type == "message" else event.type for event in stream.parser.events]


def received(app: Flask, *names: str, last_id: str = "") -> list[str]:
    """Return what a stream has that ends by itself."""
    with opened(app, *names, last_id=last_id) as stream:
        return rest(stream)


def last_id_of(stream: LocalStream) -> str:
    """Return what a browser sends when it reconnects."""
    return stream.parser.events[-1].id


def test_the_end_of_a_stream(app: Flask, channel: str) -> None:
    """Each client gets the events before it, then `sse.end`, and nothing of what comes later."""
    with opened(app, channel) as first, opened(app, channel) as second:
        publish(app, channel, "a", "b")
        assert end(app, channel) == 1
        publish(app, channel, "c")
        for stream in (first, second):
            assert rest(stream) == ["sse.open", "a", "b", "sse.end"]
            *_, last, event = stream.parser.events
            assert event.type == "sse.end"
            assert json.loads(event.data) == {"channel": channel}
            assert event.id.endswith(".end")
            assert event.id.split(".")[1] == str(int(last.id.split(".")[1]) + 1)


@pytest.mark.parametrize("way", ["header", "last_event_id", "lastEventId"])
def test_a_client_that_has_got_the_end(app: Flask, channel: str, way: str) -> None:
    """It is told not to come back, also when others have begun anew."""
    with opened(app, channel) as stream:
        end(app, channel)
        rest(stream)
        last_id = last_id_of(stream)
    for _ in range(2):
        response = app.test_client().get(
            "/stream",
            query_string={"channel": channel} | ({} if way == "header" else {way: last_id}),
            headers={"Last-Event-ID": last_id} if way == "header" else {},
        )
        assert (response.status_code, response.data) == (204, b"")
        assert "no-store" in response.headers["Cache-Control"]
        assert "Content-Type" not in response.headers
        publish(app, channel, "x")


def test_the_answer_needs_no_redis(make_app: MakeApp, redis_server: RedisServer) -> None:
    """A client that has got the end is answered while Redis is away, in both kinds of views."""
    app = with_view(make_app(REDIS_URL=redis_server.url, SSE_HISTORY=100))
    with opened(app, "x") as stream, opened(app, "x", "y") as both:
        end(app, "x")
        end(app, "y")
        rest(stream)
        rest(both)
    redis_server.crash()
    for url, last_id in {
        "/stream?channel=x": last_id_of(stream),
        "/events?name=x": last_id_of(stream),
        "/events?name=x&name=y": last_id_of(both),
        "/events?name=x&": last_id_of(both),
    }.items():
        response = app.test_client().get(url, headers={"Last-Event-ID": last_id})
        assert (response.status_code, response.data) == (204, b"")


def test_a_client_that_comes_later(app: Flask, channel: str) -> None:
    """It gets the events since the end before, and the end, as often as it comes."""
    publish(app, channel, "a", "b")
    end(app, channel)
    for _ in range(2):
        assert received(app, channel) == ["sse.open", "a", "b", "sse.end"]
    # Otherwise, the next event could be counted as one for the next client.
    wait_until(lambda: end(app, channel) == 0, "unsubscribed")
    publish(app, channel, "c")
    with opened(app, channel) as stream:
        publish(app, channel, "d")
        assert stream.events(2)[1].data == "d"
        end(app, channel)
        assert rest(stream) == ["sse.open", "d", "sse.end"]
    assert received(app, channel) == ["sse.open", "c", "d", "sse.end"]


def test_a_client_that_comes_back(app: Flask, channel: str) -> None:
    """It gets what it has missed up to the next end, also if others have begun anew."""
    start = position(app, channel)
    publish(app, channel, "a", "b")
    end(app, channel)
    assert received(app, channel, last_id=start) == ["sse.open", "a", "b", "sse.end"]
    publish(app, channel, "c")
    assert received(app, channel, last_id=start) == ["sse.open", "a", "b", "sse.end"]


def test_a_page_that_is_rendered_after_the_end(app: Flask, channel: str) -> None:
    """It gets the end, although the position is already after it; later, the events after it."""
    publish(app, channel, "a")
    end(app, channel)
    here = position(app, channel)
    assert received(app, channel, last_id=here) == ["sse.open", "sse.end"]
    publish(app, channel, "b")
    end(app, channel)
    assert received(app, channel, last_id=here) == ["sse.open", "b", "sse.end"]


def test_an_id_that_the_log_does_not_have(app: Flask, channel: str) -> None:
    """The client is told so, and that nothing else follows."""
    publish(app, channel, "a")
    end(app, channel)
    for last_id in ("unknown", f"{'0' * 16}x0.1.a", f"{'0' * 16}x0.1.a.end.end"):
        assert received(app, channel, last_id=last_id) == ["sse.open", "sse.reset", "sse.end"]


@pytest.mark.parametrize("kept", [1, 3])
def test_a_log_that_is_trimmed(
    make_app: MakeApp, any_redis_url: str, channel: str, kept: int
) -> None:
    """As many events are kept as without the end, and no client is told that it missed some."""
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY=kept)
    publish(app, channel, *"abcdef")
    end(app, channel)
    assert received(app, channel) == ["sse.open", *"abcdef"[-kept:], "sse.end"]


def test_a_log_of_many_pages(app: Flask, channel: str) -> None:
    """A client that comes after the end gets all of it."""
    large = [f"{number} {'x' * 70_000}" for number in range(20)]
    publish(app, channel, *large)
    end(app, channel)
    assert received(app, channel) == ["sse.open", *large, "sse.end"]


def test_the_latest_event(make_app: MakeApp, any_redis_url: str, channel: str) -> None:
    """A client that comes after the end gets the event before it."""
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY={"*": "latest"})
    publish(app, channel, "a", "b")
    end(app, channel)
    assert received(app, channel) == ["sse.open", "b", "sse.end"]
    publish(app, channel, "c")
    end(app, channel)
    assert received(app, channel) == ["sse.open", "c", "sse.end"]


def test_an_end_of_a_channel_without_events(app: Flask, channel: str) -> None:
    """It is an end like others, and a second one changes nothing."""
    end(app, channel)
    end(app, channel)
    assert received(app, channel) == ["sse.open", "sse.end"]
    assert position(app, channel).split(".")[1] == "1"


@pytest.mark.parametrize("kind", ["sse.end", "sse.open", "sse.reset"])
def test_events_with_our_types(app: Flask, channel: str, kind: str) -> None:
    """An application may publish them as before, and they end nothing."""
    with opened(app, channel) as stream:
        with app.app_context():
            sse.publish({"channel": channel}, type=kind, channel=channel)
            sse.publish({"channel": channel, "ends_after": 0}, type=kind, channel=channel)
        publish(app, channel, "a")
        events = stream.events(4)
        assert [event.type for event in events[1:]] == [kind, kind, "message"]
        assert not events[1].id.endswith(".end")
    with opened(app, channel, last_id=events[2].id) as stream:
        assert stream.events(2)[1].data == "a"


# Several channels


def test_the_end_of_one_channel(app: Flask, channel: str) -> None:
    """The stream goes on with the others, and the client stays without it when it comes back."""
    other = f"{channel}-other"
    with opened(app, channel, other) as stream:
        publish(app, channel, "a")
        end(app, channel)
        publish(app, channel, "not for this client")
        publish(app, other, "b")
        events = stream.events(4)[1:]
        assert [event.type for event in events] == ["message", "sse.end", "message"]
        assert json.loads(events[1].data) == {"channel": channel}
        last_id = last_id_of(stream)
    publish(app, other, "c")
    end(app, other)
    assert received(app, channel, other, last_id=last_id) == ["sse.open", "c", "sse.end"]
    publish(app, other, "d")
    came_back = received(app, channel, other, last_id=events[0].id)
    assert sorted(came_back) == ["b", "c", "sse.end", "sse.end", "sse.open"]


def test_the_end_of_all_channels(app: Flask, channel: str) -> None:
    """Then the stream ends, whoever shares it, and the client is told not to come back."""
    other = f"{channel}-other"
    with opened(app, channel, other) as first, opened(app, other, channel) as second:
        for name in (channel, other):
            publish(app, name, name)
            end(app, name)
        for stream in (first, second):
            assert rest(stream) == ["sse.open", channel, "sse.end", other, "sse.end"]
        assert last_id_of(first) == last_id_of(second)
    url = f"/events?name={channel}&name={other}"
    response = app.test_client().get(url, headers={"Last-Event-ID": last_id_of(first)})
    assert (response.status_code, response.data) == (204, b"")
    assert "no-store" in response.headers["Cache-Control"]


def test_a_client_of_several_channels_that_comes_later(app: Flask, channel: str) -> None:
    """It gets what is kept of those that have ended, and what is published to the others."""
    other, third = f"{channel}-other", f"{channel}-third"
    publish(app, channel, "a", "b")
    end(app, channel)
    publish(app, other, "c")
    end(app, other)
    assert sorted(received(app, channel, other)) == [
        "a",
        "b",
        "c",
        "sse.end",
        "sse.end",
        "sse.open",
    ]
    with opened(app, channel, other, third) as stream:
        stream.events(6)
        publish(app, third, "d")
        assert stream.events(7)[-1].data == "d"
        end(app, third)
        assert rest(stream)[-1] == "sse.end"


def test_a_channel_without_history_keeps_a_stream_open(app: Flask, channel: str) -> None:
    """It can't end."""
    plain = f"plain-{channel}"
    with opened(app, channel, plain) as stream:
        end(app, channel)
        stream.events(2)
        publish(app, plain, "a")
        assert stream.events(3)[-1].data == "a"
        last_id = stream.parser.events[1].id
    with opened(app, channel, plain, last_id=last_id) as stream:
        publish(app, channel, "not for this client")
        publish(app, plain, "b")
        assert stream.events(2)[1].data == "b"


# Consumers in Python


def test_messages(app: Flask, channel: str) -> None:
    """Both generators end; after the id of the end, the next messages come."""
    start = position(app, channel)
    publish(app, channel, "a", "b")
    with app.app_context(), closing(sse.messages(channel)) as live:
        publish(app, channel, "c")
        end(app, channel)
        assert [message.data for message in live] == ["a", "b", "c"]
        assert [message.data for message in history.messages(channel)] == ["a", "b", "c"]
        *_, last = history.messages(channel, after=start)
        assert last.data == "c"
        assert isinstance(last.id, str)
        assert [*history.messages(channel, after=last.id)] == []
    with opened(app, channel) as stream:
        rest(stream)
        ended = last_id_of(stream)
    with app.app_context():
        assert [*history.messages(channel, after=ended)] == []
        with closing(history.messages(channel, after=ended)) as messages:
            publish(app, channel, "d")
            assert next(messages).data == "d"
            end(app, channel)
            assert [*messages] == []


def test_an_overridden_redis_has_the_end(
    make_app: MakeApp, shared_redis: RedisServer, redis_server: RedisServer, channel: str
) -> None:
    """The blueprint says whose channel it is."""
    client = redis.StrictRedis(port=redis_server.port)

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return client

    own = Own("own", __name__)
    app = make_app(REDIS_URL=shared_redis.url, SSE_HISTORY=100)
    with app.app_context():
        own.publish("a", channel=channel)
        streams.end(channel, blueprint=own)
        assert [one.data for one in history.messages(channel, blueprint=own)] == ["a"]
        assert history.position(channel).split(".")[1] == "0"
        client = client.pipeline()
        with pytest.raises(TypeError, match=r"must be a redis\.StrictRedis"):
            streams.end(channel, blueprint=own)


class Upper(ServerSentEventsBlueprint):
    """A blueprint whose streams are changed."""

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Yield the messages of a channel in capital letters, and then another one."""
        for message in super().messages(channel):
            yield Message(message.data.upper(), id=message.id)
        yield Message("THE END")


def test_an_overridden_generator(make_app: MakeApp, any_redis_url: str, channel: str) -> None:
    """Its stream ends with `sse.end`, too, after all that it yields."""
    app = Flask("tests")
    app.config.update(REDIS_URL=any_redis_url, SSE_HISTORY=100)
    upper = Upper("sse", __name__)
    upper.add_url_rule("", endpoint="stream", view_func=upper.stream)
    app.register_blueprint(upper, url_prefix="/stream")
    url = f"/stream?channel={channel}"
    publish(app, channel, "a")
    end(app, channel)
    with app.test_client().get(url) as response:
        events = parse(response.get_data(as_text=True))
    assert [(event.type, event.data) for event in events] == [
        ("message", "A"),
        ("message", "THE END"),
        ("sse.end", json.dumps({"channel": channel})),
    ]
    response = app.test_client().get(url, headers={"Last-Event-ID": events[-1].id})
    assert (response.status_code, response.data) == (204, b"")


# The caller


@pytest.mark.parametrize("history_of", [0, {"other": 100}])
def test_a_channel_without_history(make_app: MakeApp, history_of: object) -> None:
    """It can't be ended; the error says why, and which setting changes that."""
    app = make_app(REDIS_URL="memory://", SSE_HISTORY=history_of)
    with (
        app.app_context(),
        pytest.raises(
            ValueError, match=r"channel 'job\.7' has no history, .* SSE_HISTORY says which"
        ),
    ):
        streams.end("job.7")


@pytest.mark.parametrize("name", [b"\xff", "\N{SNOWMAN}", 'a"b\\\n', "", "x" * 300])
def test_any_name_of_a_channel(make_app: MakeApp, redis_url: str, name: Any, channel: str) -> None:
    """The event names it as text."""
    app = make_app(REDIS_URL=redis_url, SSE_HISTORY=100)
    name = name + channel.encode() if isinstance(name, bytes) else name + channel
    with app.app_context():
        streams.end(name)
        start = history.position(name)
        assert [*history.messages(name, after=start)] == []
    text = name.decode(errors="replace") if isinstance(name, bytes) else name
    if isinstance(name, str):
        with opened(app, name) as stream:
            assert json.loads(stream.events(2)[1].data) == {"channel": text}


def test_the_signals(make_app: MakeApp, channel: str) -> None:
    """A stream that has ended with its channel says so; the end is no message."""
    app = make_app(REDIS_URL="memory://", SSE_HISTORY=100)
    gone: list[Mapping[str, Any]] = []
    published: list[str] = []
    delivered: list[int] = []

    def note_gone(_: Flask, **values: Any) -> None:
        gone.append(values)

    def note_published(_: Flask, *, channel: str, **rest: Any) -> None:
        published.append(channel)

    def note_delivered(_: Flask, *, messages: int, **rest: Any) -> None:
        delivered.append(messages)

    with (
        signals.client_gone.connected_to(note_gone, app),
        signals.message_published.connected_to(note_published, app),
        signals.messages_delivered.connected_to(note_delivered, app),
        opened(app, channel) as stream,
    ):
        publish(app, channel, "a")
        stream.events(2)
        end(app, channel)
        rest(stream)
        wait_until(lambda: bool(gone), "the stream has ended")
    assert (gone[0]["reason"], gone[0]["events_sent"]) == ("end", 1)
    assert published == [channel]
    assert delivered == [1]
