"""History: the log of a channel, streams that continue after a position, and resets."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final

import pytest
import redis
from flask import Flask

from flask_sse import ServerSentEventsBlueprint, history, sse
from tests.support.parser import Event
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wsgi import LocalStream, pieces_of

MakeApp = Callable[..., Flask]
OTHER_EPOCH: Final = f"{'0' * 16}x0"


@pytest.fixture
def app(make_app: MakeApp, any_redis_url: str) -> Flask:
    """Return an application that keeps 100 events, on each kind of Redis."""
    return make_app(REDIS_URL=any_redis_url, SSE_HISTORY=100)


@contextmanager
def opened(
    app: Flask, channel: str, last_id: str = "", **query: str | list[str]
) -> Iterator[LocalStream]:
    """Open a stream, after an event or at the top, and read its first event."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with app.test_client().get(
        "/stream", query_string={"channel": channel, **query}, headers=headers
    ) as response:
        stream = LocalStream(pieces_of(response))
        stream.events(1)
        yield stream


def publish(app: Flask, channel: str, numbers: Sequence[int]) -> None:
    """Publish some numbers."""
    with app.app_context():
        for number in numbers:
            sse.publish(number, channel=channel)


def position(app: Flask, channel: str) -> str:
    """Return the newest position of a channel."""
    with app.app_context():
        return history.position(channel)


def opening(channel: str, position: str, *, recovered: bool) -> Event:
    """Return the event that begins a stream."""
    return Event("sse.open", json.dumps({"channel": channel, "recovered": recovered}), position)


def numbers(events: Sequence[Event]) -> list[int]:
    """Return the data of the published events."""
    return [int(event.data) for event in events if event.type == "message"]


def reset(event: Event) -> str:
    """Return the reason of a reset."""
    assert event.type == "sse.reset"
    return str(json.loads(event.data)["reason"])


def test_a_stream_begins_with_its_position(app: Flask, channel: str) -> None:
    """The first event has the cursor, and the published ones follow it."""
    publish(app, channel, [0])
    with opened(app, channel) as stream:
        assert stream.first.startswith(b":\n")
        assert stream.events(1) == [opening(channel, position(app, channel), recovered=False)]
        publish(app, channel, [1, 2])
        events = stream.events(3)
        assert numbers(events) == [1, 2]
        assert events[-1].id == position(app, channel)
        epoch, offset, nonce = events[-1].id.split(".")
        assert offset == "3"
        assert (epoch + nonce).isalnum()


@pytest.mark.parametrize("way", ["header", "last_event_id", "lastEventId"])
def test_a_stream_goes_on_after_a_position(app: Flask, channel: str, way: str) -> None:
    """The header and both parameters are accepted, and no event comes twice."""
    publish(app, channel, [0])
    here = position(app, channel)
    publish(app, channel, [1, 2, 3])
    named = {"last_id": here} if way == "header" else {way: here}
    with opened(app, channel, **named) as stream:
        assert stream.events(4)[0] == opening(channel, here, recovered=True)
        publish(app, channel, [4])
        assert numbers(stream.events(5)) == [1, 2, 3, 4]


@pytest.mark.parametrize("way", ["header", "lastEventId"])
def test_what_a_client_has_stored_goes_first(app: Flask, channel: str, way: str) -> None:
    """When a client reconnects to a page's URL with a position, its own position is newer."""
    old = position(app, channel)
    publish(app, channel, [0, 1])
    new = position(app, channel)
    publish(app, channel, [2])
    named = {"last_id": new} if way == "header" else {way: new}
    with opened(app, channel, last_event_id=old, **named) as stream:
        assert numbers(stream.events(2)) == [2]


def test_the_last_position_in_a_url_is_the_newest(app: Flask, channel: str) -> None:
    """Clients add their position to a URL that may have one under the same name."""
    old = position(app, channel)
    publish(app, channel, [0, 1])
    new = position(app, channel)
    publish(app, channel, [2])
    with opened(app, channel, last_event_id=[old, new, ""]) as stream:
        assert numbers(stream.events(2)) == [2]
    with opened(app, channel, lastEventId=[old, new, ""]) as stream:
        assert numbers(stream.events(2)) == [2]


def test_a_client_that_has_received_nothing(app: Flask, channel: str) -> None:
    """A client has a position even on a channel without any events."""
    with opened(app, channel) as stream:
        [first] = stream.events(1)
    publish(app, channel, [1])
    with opened(app, channel, first.id) as stream:
        assert numbers(stream.events(2)) == [1]


def test_others_share_the_ring(app: Flask, channel: str) -> None:
    """With a stream open, another resumes without a question to the log, or with one."""
    start = position(app, channel)
    publish(app, channel, range(5))
    middle = position(app, channel)
    with opened(app, channel) as live:
        publish(app, channel, range(5, 8))
        assert numbers(live.events(4)) == [5, 6, 7]
        for _ in range(2):
            with opened(app, channel, middle) as stream:
                assert numbers(stream.events(4)) == [5, 6, 7]
            with opened(app, channel, start) as stream:
                assert numbers(stream.events(9)) == [*range(8)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("42", "different one"),
        (f"{OTHER_EPOCH}.1.{'0' * 10}", "different one"),
        ("{epoch}.9.{nonce}", "ends before"),
        ("{epoch}.3.0123456789", "differently"),
        ("{epoch}.2.0123456789", "differently"),
    ],
)
def test_an_id_that_the_log_does_not_have(
    app: Flask, channel: str, wrong: str, reason: str
) -> None:
    """The client gets `sse.reset`, and is live from the newest position on."""
    publish(app, channel, [0, 1, 2])
    top = position(app, channel)
    epoch, _, nonce = top.split(".")
    cursor = wrong.format(epoch=epoch, nonce=nonce)
    with opened(app, channel, cursor) as stream:
        first, second = stream.events(2)
        assert json.loads(first.data)["recovered"] is False
        assert reason in reset(second)
        assert second.id == top
        publish(app, channel, [3])
        assert numbers(stream.events(3)) == [3]


def test_events_that_are_not_kept_any_more(
    make_app: MakeApp, any_redis_url: str, channel: str
) -> None:
    """A client is told if its next event is gone, and is not told if the event still exists."""
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY={"other": 1, "channel-*": 3, "*": 0})
    ids = []
    for number in range(5):
        ids.append(position(app, channel))
        publish(app, channel, [number])
    with opened(app, channel, ids[2]) as stream:
        assert numbers(stream.events(4)) == [2, 3, 4]
    with opened(app, channel, ids[1]) as stream:
        assert "no longer goes back" in reset(stream.events(2)[1])


def test_the_latest_event(make_app: MakeApp, any_redis_url: str, channel: str) -> None:
    """With `"latest"` a client without a position gets the newest event at once."""
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY={"*": "latest"})
    with opened(app, channel) as stream:
        publish(app, channel, [0, 1, 2])
        assert numbers(stream.events(4)) == [0, 1, 2]
        with opened(app, channel) as another:
            assert numbers(another.events(2)) == [2]
    with opened(app, channel) as stream:
        assert numbers(stream.events(2)) == [2]
        publish(app, channel, [3])
        assert numbers(stream.events(3)) == [2, 3]


def test_channels_without_history(make_app: MakeApp, any_redis_url: str, channel: str) -> None:
    """A channel that no pattern names, or one with 0, is as documented without history."""
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY={"off-*": 0, "logged-*": 5, "off-5": 5})
    for name in (channel, "off-5"):
        with app.test_client().get(f"/stream?channel={name}&last_event_id=1") as response:
            stream = LocalStream(pieces_of(response))
            assert stream.first == b":\n"
            with app.app_context():
                assert sse.publish("x", id=7, channel=name) == 1
            assert stream.events(1) == [Event("message", "x", "7")]
        with app.app_context(), pytest.raises(ValueError, match="SSE_HISTORY"):
            history.position(name)
        with app.app_context(), pytest.raises(ValueError, match="SSE_HISTORY"):
            history.messages(name)


def test_an_id_is_refused(app: Flask, channel: str) -> None:
    """If ids are positions, an application can't set them."""
    with app.app_context(), pytest.raises(ValueError, match="SSE_HISTORY"):
        sse.publish("x", id=1, channel=channel)


@pytest.mark.parametrize("name", ["", "}x", "a{b}c", "Grüße", "new\nline", "x" * 1000])
def test_any_name_of_a_channel(app: Flask, name: str, channel: str) -> None:
    """A log has keys for every name."""
    name = f"{name}{channel}" if name else ""
    with app.app_context():
        start = history.position(name)
        sse.publish("x", channel=name)
        with closing(history.messages(name, after=start)) as messages:
            assert next(messages).data == "x"


@pytest.mark.parametrize("size", [1 << 16, 1 << 18, 10 << 20])
def test_a_large_event(app: Flask, channel: str, size: int) -> None:
    """It is read from the log, live and later, in its order."""
    text = "x" * size
    with opened(app, channel) as stream, app.app_context():
        [first] = stream.events(1)
        for data in ("before", text, "after"):
            sse.publish(data, channel=channel)
        assert [event.data for event in stream.events(4)[1:]] == ["before", text, "after"]
        with opened(app, channel, first.id) as another:
            assert [event.data for event in another.events(4)[1:]] == ["before", text, "after"]


def test_all_kinds_of_data(app: Flask, channel: str) -> None:
    """Type, retry and any data arrive as without history."""
    with opened(app, channel) as stream, app.app_context():
        sse.publish({"n": [1, None]}, type="count", retry=5, channel=channel)
        sse.publish("two\nlines ☃", channel=channel)
        _, first, second = stream.events(3)
        assert (first.type, json.loads(first.data)) == ("count", {"n": [1, None]})
        assert second.data == "two\nlines ☃"
        assert stream.parser.retry == 5


def test_a_foreign_event(
    make_app: MakeApp, shared_redis: RedisServer, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Events of 1.0 arrive without a position, whatever their id, and are warned of once."""
    app = make_app(REDIS_URL=shared_redis.url, SSE_HISTORY=100)
    with opened(app, channel) as stream:
        publish(app, channel, [0])
        for number in (1, 2):
            shared_redis.admin.publish(channel, f'{{"data": "{number}", "id": 7}}')
        shared_redis.admin.publish(channel, "malformed")
        publish(app, channel, [3])
        events = stream.events(5)
        assert numbers(events) == [0, 1, 2, 3]
        assert events[1].id == events[2].id == events[3].id
    assert caplog.text.count("publishes to it without history") == 1
    assert caplog.text.count("malformed event") == 1


def test_two_databases(make_app: MakeApp, shared_redis: RedisServer, channel: str) -> None:
    """Each has a log of its own, and the events of the other have no position."""
    apps = [
        make_app(REDIS_URL=f"{shared_redis.url}/{database}", SSE_HISTORY=100) for database in (0, 1)
    ]
    with opened(apps[0], channel) as first, opened(apps[1], channel) as second:
        for number in range(6):
            publish(apps[number % 2], channel, [number])
        for stream in (first, second):
            events = stream.events(7)
            assert numbers(events) == [*range(6)]
            assert not any(event.type == "sse.reset" for event in events)
            assert len({event.id for event in events}) == 4


def test_what_1_0_receives(make_app: MakeApp, shared_redis: RedisServer, channel: str) -> None:
    """What is published has no keys but those that 1.0 knows."""
    app = make_app(REDIS_URL=shared_redis.url, SSE_HISTORY=100)
    with shared_redis.admin.pubsub(ignore_subscribe_messages=True) as pubsub, app.app_context():
        pubsub.subscribe(channel)
        wait_until(lambda: shared_redis.listeners(channel) == 1, "subscribed")
        sse.publish("x", type="t", retry=1, channel=channel)
        sse.publish("x" * 100_000, channel=channel)
        payloads: list[dict[str, object]] = []

        def receive() -> bool:
            if message := pubsub.get_message(timeout=0.1):
                published: Any = message["data"]
                payloads.append(json.loads(published))
            return len(payloads) == 2

        wait_until(receive, "both have come")
        assert [payload.keys() for payload in payloads] == [
            {"data", "id", "retry", "type"},
            {"data", "id"},
        ]


def test_a_malformed_entry_of_the_log(
    make_app: MakeApp, redis_server: RedisServer, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out and logged, and the stream goes on."""
    app = make_app(REDIS_URL=redis_server.url, SSE_HISTORY=100)
    start = position(app, channel)
    publish(app, channel, [0, 1, 2])
    [log] = redis_server.admin.keys("flask-sse:*")
    entries: Any = redis_server.admin.xrange(log)
    redis_server.admin.delete(log)
    for number, (name, fields) in enumerate(entries):
        payload = b"malformed" if number == 1 else fields[b"payload"]
        redis_server.admin.xadd(log, {**fields, b"payload": payload}, id=name)
    with opened(app, channel, start) as stream:
        assert numbers(stream.events(3)) == [0, 2]
    assert "malformed event" in caplog.text


def test_messages_of_the_blueprint(app: Flask, channel: str) -> None:
    """`messages()` yields ids that are positions, and no events of the stream's own."""
    with app.app_context():
        messages = sse.messages(channel)
    heard: list[tuple[object, object]] = []

    def hear() -> None:
        for message in messages:
            heard.append((message.data, message.id))
            if message.data == "last":
                return

    def is_heard() -> bool:
        sse.publish("first", channel=channel)
        return bool(heard)

    listener = threading.Thread(target=hear, daemon=True)
    listener.start()
    with app.app_context():
        wait_until(is_heard, "the generator has begun")
        sse.publish({"a": 1}, channel=channel)
        sse.publish("last", channel=channel)
        listener.join(PATIENCE)
        *first, second, last = [data for data, _ in heard]
        assert set(first) == {"first"}
        assert [second, last] == [{"a": 1}, "last"]
        assert heard[-1][1] == history.position(channel)
    messages.close()


def test_messages_after_a_position(app: Flask, channel: str) -> None:
    """They continue after the position, and each message is a position to continue from."""
    with app.app_context():
        start = history.position(channel)
        publish(app, channel, range(3))
        with closing(history.messages(channel, after=start)) as messages:
            found = [next(messages) for _ in range(3)]
            assert [message.data for message in found] == [0, 1, 2]
            sse.publish(3, channel=channel)
            assert next(messages).data == 3
        with closing(history.messages(channel, after=str(found[1].id))) as messages:
            assert [next(messages).data for _ in range(2)] == [2, 3]


def test_messages_that_are_missing(app: Flask, channel: str) -> None:
    """A position that the log does not have is an error that says so."""
    with app.app_context():
        publish(app, channel, [0])
        with pytest.raises(ValueError, match="after must be"):
            history.messages(channel, after="42")
        messages = history.messages(channel, after=f"{OTHER_EPOCH}.1.{'0' * 10}")
        with pytest.raises(LookupError, match="may be missing"):
            next(messages)


def test_a_consumer_that_is_slow(make_app: MakeApp, any_redis_url: str, channel: str) -> None:
    """Messages above the limit are read from the log, in order, and consumers stay connected."""
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY=2000, SSE_MAX_PENDING=2000)
    text = "x" * 500
    with app.app_context(), closing(history.messages(channel)) as messages:
        heard: list[str] = []
        go_on = threading.Event()

        def hear() -> None:
            for message in messages:
                heard.append(message.data)
                assert go_on.wait(PATIENCE)
                if len(heard) == 301:
                    return

        listener = threading.Thread(target=hear, daemon=True)
        listener.start()
        wait_until(lambda: sse.publish("0", channel=channel), "somebody listens")
        wait_until(lambda: heard, "it has heard something")
        for number in range(1, 301):
            sse.publish(f"{number} {text}", channel=channel)
        go_on.set()
        listener.join(PATIENCE)
        assert [int(data.split()[0]) for data in heard] == [*range(301)]


def test_a_client_that_is_slow(make_app: MakeApp, any_redis_url: str, channel: str) -> None:
    """The same is true for a stream that the server reads slowly."""
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY=2000, SSE_MAX_PENDING=2000)
    with opened(app, channel) as stream:
        publish(app, channel, range(1000))
        assert numbers(stream.events(1001)) == [*range(1000)]
        publish(app, channel, [1000])
        assert numbers(stream.events(1002)) == [*range(1001)]


def test_a_page_is_never_left_out(make_app: MakeApp, any_redis_url: str, channel: str) -> None:
    """Even with a tiny limit, the beginning of a stream and the first page are both delivered."""
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY=2000, SSE_MAX_PENDING=1)
    for _ in range(10):
        start = position(app, channel)
        publish(app, channel, range(50))
        with opened(app, channel, start) as stream:
            assert numbers(stream.events(51)) == [*range(50)]
            publish(app, channel, [50])
            assert numbers(stream.events(52)) == [*range(51)]


def test_many_clients_that_come_back(app: Flask, channel: str) -> None:
    """Each gets the events that it missed, from any position."""
    ids = []
    for number in range(60):
        ids.append(position(app, channel))
        publish(app, channel, [number])
    with ExitStack() as stack:
        streams = [stack.enter_context(opened(app, channel, cursor)) for cursor in ids]
        publish(app, channel, [60])
        for number, stream in enumerate(streams):
            assert numbers(stream.events(62 - number)) == [*range(number, 61)]


@pytest.mark.parametrize("forbidden", ["@scripting", "@stream", "@write"])
def test_a_redis_that_forbids_it(
    make_app: MakeApp, shared_redis: RedisServer, channel: str, forbidden: str
) -> None:
    """The errors name the setting, with the first use, and nothing is published."""
    rules = ("on", ">secret", "~*", "&*", "+@all", f"-{forbidden}")
    shared_redis.admin.execute_command("ACL", "SETUSER", "few", "reset", *rules)
    url = shared_redis.url.replace("//", "//few:secret@")
    app = make_app(REDIS_URL=url, SSE_HISTORY=100)
    with app.app_context():
        with pytest.raises(redis.ResponseError, match="SSE_HISTORY needs a Redis that allows"):
            sse.publish("x", channel=channel)
        with pytest.raises(redis.ResponseError, match="SSE_HISTORY needs"):
            history.position(channel)
        with pytest.raises(redis.ResponseError, match="SSE_HISTORY needs"):
            next(sse.messages(channel))


def test_a_client_of_ones_own(make_app: MakeApp, shared_redis: RedisServer, channel: str) -> None:
    """An overridden `redis` publishes with history; a client that can't run scripts is refused."""

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return client

    own = Own("own", __name__)
    app = make_app(REDIS_URL=shared_redis.url, SSE_HISTORY=100)
    start = position(app, channel)
    client = redis.StrictRedis(port=shared_redis.port)
    with app.app_context():
        own.publish("x", channel=channel)
        with closing(history.messages(channel, after=start)) as messages:
            assert next(messages).data == "x"
        client = client.pipeline()
        with pytest.raises(
            TypeError, match=r"with SSE_HISTORY or SSE_PRESENCE, redis must be a redis\.StrictRedis"
        ):
            own.publish("x", channel=channel)


def test_an_overridden_redis_has_the_log(
    make_app: MakeApp, shared_redis: RedisServer, redis_server: RedisServer, channel: str
) -> None:
    """With the blueprint, positions and messages are those of its own Redis."""
    client = redis.StrictRedis(port=redis_server.port)

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return client

    own = Own("own", __name__)
    for url in (shared_redis.url, None):
        app = make_app(REDIS_URL=url, SSE_HISTORY=100)
        with app.app_context():
            start = history.position(channel, blueprint=own)
            own.publish("x", channel=channel)
            with closing(history.messages(channel, start, blueprint=own)) as messages:
                message = next(messages)
            assert message.data == "x"
            assert message.id == history.position(channel, blueprint=own)
            if url is not None:
                assert history.position(channel).split(".")[1] == "0"
            else:
                with pytest.raises(KeyError):
                    history.position(channel)
    client = client.pipeline()
    with app.app_context(), pytest.raises(TypeError, match=r"must be a redis\.StrictRedis"):
        history.position(channel, blueprint=own)


def test_messages_without_a_position(
    make_app: MakeApp, shared_redis: RedisServer, channel: str
) -> None:
    """Events of 1.0, and of another database, have no id in `messages()` either."""
    app, other = (
        make_app(REDIS_URL=f"{shared_redis.url}/{database}", SSE_HISTORY=100) for database in (0, 1)
    )
    with app.app_context():
        start = history.position(channel)
        sse.publish(0, channel=channel)
        with closing(history.messages(channel, after=start)) as messages:
            assert next(messages).id == history.position(channel)
            publish(other, channel, [1])
            shared_redis.admin.publish(channel, '{"data": 2, "id": 7, "type": "t"}')
            assert [next(messages).to_dict() for _ in range(2)] == [
                {"data": 1},
                {"data": 2, "type": "t"},
            ]
