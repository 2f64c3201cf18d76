"""The hub: one subscription, even if clients come and go and Redis fails."""

import json
import os
import random
import resource
import select
import selectors
import socket
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Final

import pytest
import redis
from flask import Flask

from flask_sse import Message, sse
from flask_sse._hub.connection import Connection
from flask_sse._hub.hub import Hub
from flask_sse._hub.subscriber import Subscriber
from flask_sse._redis.outage import Outage
from flask_sse._redis.pubsub import PubSubConnection, Subscribed
from flask_sse._redis.server_subscription import ServerSubscription
from tests.support.interrupting import run_with_interruptions
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wsgi import open_stream

LIMIT: Final = 1 << 20


@contextmanager
def joined(hub: Hub, channel: str) -> Iterator[Subscriber]:
    """Subscribe, from the confirmation on until the block ends."""
    subscriber = Subscriber(LIMIT)
    hub.join(channel.encode(), subscriber)
    try:
        assert subscriber.wait_confirmed(PATIENCE), "no confirmation"
        yield subscriber
    finally:
        hub.leave(subscriber)


def received(subscriber: Subscriber) -> list[str]:
    """Wait for data, and return the data of the events that have arrived."""
    batches = subscriber.take(timeout=PATIENCE)
    assert batches, "nothing has come"
    return [json.loads(payload)["data"] for batch in batches for payload in batch.payloads]


def hub_threads() -> int:
    """Return how many hubs have a loop."""
    return sum(thread.name == "flask-sse-hub" for thread in threading.enumerate())


@pytest.fixture
def hub(redis_server: RedisServer) -> Iterator[Hub]:
    """Return a hub that ends soon, and asks Redis often."""
    connect = partial(
        PubSubConnection,
        redis.Redis(port=redis_server.port),
        ping_after=0.2,
        answer_within=0.5,
    )
    wait_until(lambda: hub_threads() == 0, "the loops of other tests' hubs have ended")
    yield Hub(partial(ServerSubscription, connect), Flask("tests").json, linger=0.1)
    wait_until(lambda: hub_threads() == 0, "the loop has ended")


def test_the_loop_ends_and_starts_again(hub: Hub, redis_server: RedisServer) -> None:
    """Without subscribers there is neither a thread nor a connection after a while."""
    for _ in range(3):
        with joined(hub, "x") as subscriber:
            assert hub_threads() == 1
            assert redis_server.pubsub_connections() == 1
            redis_server.admin.publish("x", '{"data": "hello"}')
            assert received(subscriber) == ["hello"]
        wait_until(lambda: hub_threads() == 0, "the loop has ended")
        wait_until(lambda: redis_server.pubsub_connections() == 0, "disconnected")


def test_a_kill_is_noticed_and_mended(
    hub: Hub, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """After `CLIENT KILL` all channels are subscribed again; it is logged once."""
    with joined(hub, "a") as first, joined(hub, "b") as second:
        for round_ in range(3):
            assert redis_server.kill_pubsub() == 1
            redis_server.wait_listeners(1, "a")
            redis_server.wait_listeners(1, "b")
            redis_server.admin.publish("a", f'{{"data": "a{round_}"}}')
            redis_server.admin.publish("b", f'{{"data": "b{round_}"}}')
            assert received(first) == [f"a{round_}"]
            assert received(second) == [f"b{round_}"]
    assert caplog.text.count("Redis is unavailable") == 3
    assert caplog.text.count("Redis is back") == 3


def test_only_what_is_wanted_is_subscribed_again(hub: Hub, redis_server: RedisServer) -> None:
    """A reconnect subscribes to the channels of now, not to those of before."""
    with joined(hub, "stays") as subscriber:
        with joined(hub, "leaves"):
            redis_server.stop()
        redis_server.start()
        redis_server.wait_listeners(1, "stays")
        assert redis_server.listeners("leaves") == 0
        redis_server.admin.publish("stays", '{"data": "x"}')
        assert received(subscriber) == ["x"]


def test_a_frozen_redis_is_noticed(
    hub: Hub, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis that does not answer PING is dropped, and used again when it resumes."""
    with joined(hub, "x") as subscriber:
        before = redis_server.admin.client_list(_type="pubsub")[0]["id"]
        redis_server.freeze()
        wait_until(lambda: "Redis is unavailable: no answer" in caplog.text, "noticed")
        redis_server.thaw()
        wait_until(
            lambda: [c["id"] for c in redis_server.admin.client_list(_type="pubsub")] > [before],
            "another connection",
        )
        redis_server.wait_listeners(1, "x")
        redis_server.admin.publish("x", '{"data": "again"}')
        assert received(subscriber) == ["again"]


def test_silence_is_no_outage(
    hub: Hub, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis that answers each PING is kept, however quiet its channels are."""
    with joined(hub, "x"):
        [before] = redis_server.admin.client_list(_type="pubsub")
        wait_until(
            lambda: redis_server.admin.client_list(_type="pubsub")[0]["cmd"] == "ping", "a PING"
        )
        pings = int(redis_server.admin.info("commandstats")["cmdstat_ping"]["calls"])
        wait_until(
            lambda: redis_server.admin.info("commandstats")["cmdstat_ping"]["calls"] > pings + 3,
            "more of them",
        )
        [after] = redis_server.admin.client_list(_type="pubsub")
    assert before["id"] == after["id"]
    assert not caplog.text


def test_the_latest_subscribe_is_the_one_that_counts(hub: Hub, redis_server: RedisServer) -> None:
    """A client that joins during the unsubscribe misses nothing once it is confirmed."""
    with joined(hub, "anchor"):
        for number in range(300):
            with joined(hub, "x") as subscriber:
                assert redis_server.admin.publish("x", f'{{"data": "{number}"}}') == 1
                assert received(subscriber) == [str(number)]


@pytest.mark.timeout(120)
def test_churn_with_kills_leaves_nothing_behind(hub: Hub, redis_server: RedisServer) -> None:
    """50 threads subscribe and unsubscribe 10,000 times while connections are cut."""
    names = [f"churn-{number}" for number in range(20)]
    done = threading.Event()

    def churn(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(200):
            with joined(hub, chance.choice(names)):
                pass

    def kill() -> None:
        while not done.wait(0.05):
            redis_server.kill_pubsub()

    before = threading.active_count()
    with joined(hub, "anchor") as anchor:
        with ThreadPoolExecutor(51) as threads:
            killer = threads.submit(kill)
            for churner in [threads.submit(churn, seed) for seed in range(50)]:
                churner.result()
            done.set()
            killer.result()
        redis_server.wait_listeners(1, "anchor")
        wait_until(
            lambda: redis_server.admin.pubsub_channels() == [b"anchor"],
            "no channel left but one",
        )
        redis_server.admin.publish("anchor", '{"data": "alive"}')
        assert received(anchor) == ["alive"]
    wait_until(lambda: redis_server.pubsub_connections() == 0, "no connection left")
    wait_until(lambda: threading.active_count() <= before, "no thread left")


def test_a_defect_does_not_end_the_loop(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error is logged with its traceback, and the hub starts again."""
    fails = iter([True])
    client = redis.Redis(port=redis_server.port)

    def connect() -> PubSubConnection:
        if next(fails, False):
            raise ZeroDivisionError("unforeseen")
        return PubSubConnection(client)

    hub = Hub(partial(ServerSubscription, connect), Flask("tests").json, linger=0.1)
    with joined(hub, "x") as subscriber:
        redis_server.admin.publish("x", '{"data": "x"}')
        assert received(subscriber) == ["x"]
    assert "ZeroDivisionError: unforeseen" in caplog.text


def test_ten_thousand_channels_after_a_reconnect(hub: Hub, redis_server: RedisServer) -> None:
    """All channels of many are subscribed again, and each hears its own."""
    subscribers = {f"many-{number}": Subscriber(LIMIT) for number in range(10_000)}
    for name, subscriber in subscribers.items():
        hub.join(name.encode(), subscriber)
    assert all(subscriber.wait_confirmed(PATIENCE) for subscriber in subscribers.values())
    redis_server.kill_pubsub()
    redis_server.wait_listeners(1, "many-0")
    redis_server.wait_listeners(1, "many-9999")
    pipeline = redis_server.admin.pipeline(transaction=False)
    for name in subscribers:
        pipeline.publish(name, f'{{"data": "{name}"}}')
    assert set(pipeline.execute()) == {1}
    for name, subscriber in subscribers.items():
        assert received(subscriber) == [name]
        hub.leave(subscriber)
    wait_until(lambda: redis_server.admin.pubsub_channels() == [], "nothing subscribed")


def test_a_fork_starts_afresh(shared_redis: RedisServer) -> None:
    """A process that was forked after a subscription has connections of its own."""
    app = Flask("tests")
    app.config["REDIS_URL"] = shared_redis.url
    app.register_blueprint(sse, url_prefix="/stream")
    with open_stream(app, "fork") as parent, app.app_context():
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                with open_stream(app, "fork") as stream:
                    os.write(writer, b"o")
                    status = 0 if stream.events(1)[0].data == "to both" else 2
                    sse.publish("from the child", channel="fork-parent")
            finally:
                os._exit(status)
        assert os.read(reader, 1) == b"o"
        with open_stream(app, "fork-parent") as answer:
            assert sse.publish("to both", channel="fork") == 2
            assert parent.events(1)[0].data == "to both"
            assert answer.events(1)[0].data == "from the child"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_publish_that_was_sent_is_not_sent_again(redis_server: RedisServer) -> None:
    """A Redis that is silent for longer than the time-out gets one PUBLISH, not two."""
    app = Flask("tests")
    app.config["REDIS_URL"] = redis_server.url + "?socket_timeout=2"
    with app.app_context():
        sse.publish("warm")
        redis_server.freeze()
        with pytest.raises(redis.TimeoutError):
            sse.publish("once")
        redis_server.thaw()
        calls = redis_server.admin.info("commandstats")["cmdstat_publish"]["calls"]
        assert calls == 2


def test_a_connection_that_has_died_costs_no_event(redis_server: RedisServer) -> None:
    """The first publish after a restart of Redis works: the pool looks before it sends."""
    app = Flask("tests")
    app.config["REDIS_URL"] = redis_server.url
    with app.app_context():
        sse.publish("before")
        redis_server.stop()
        with pytest.raises(redis.ConnectionError):
            sse.publish("during")
        redis_server.start()
        assert sse.publish("after") == 0


def test_more_publishers_than_connections(redis_server: RedisServer) -> None:
    """Publishers wait for a connection from the pool, and lose nothing."""
    app = Flask("tests")
    app.config["REDIS_URL"] = redis_server.url + "?max_connections=3"
    app.register_blueprint(sse, url_prefix="/stream")
    with open_stream(app, "many") as stream:

        def publish() -> None:
            with app.app_context():
                for _ in range(20):
                    sse.publish("x", channel="many")

        threads = [threading.Thread(target=publish) for _ in range(30)]
        for thread in threads:
            thread.start()
        assert len(stream.events(600)) == 600
        for thread in threads:
            thread.join()


def test_messages_are_not_shared(shared_redis: RedisServer) -> None:
    """Changing a message from `messages` does not affect other listeners."""
    app = Flask("tests")
    app.config["REDIS_URL"] = shared_redis.url
    with app.app_context():
        results: list[Message] = []

        def listen() -> None:
            with app.app_context():
                message = next(sse.messages("shared"))
            message.data["seen"] = True
            results.append(message)

        threads = [threading.Thread(target=listen) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(
            lambda: (
                sse.publish({"n": 1}, channel="shared") >= 0
                and not any(thread.is_alive() for thread in threads)
            ),
            "heard",
        )
        assert results == [Message({"n": 1, "seen": True})] * 2


def test_an_outage_may_last(caplog: pytest.LogCaptureFixture) -> None:
    """The pauses are limited, even after many attempts; start and end are logged once."""
    outage = Outage()
    pauses = [outage.note_failure(ConnectionError("refused")) for _ in range(3000)]
    assert all(0 <= pause <= 2 for pause in pauses)
    outage.note_success()
    outage.note_success()
    assert [record.getMessage() for record in caplog.records] == [
        "Redis is unavailable: refused; streams stay open and continue when it is back",
        "Redis is back after 3000 attempts",
    ]


def test_a_lack_of_descriptors_is_an_outage(
    hub: Hub, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that is out of file descriptors reconnects when it can."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with joined(hub, "x") as subscriber:
        admin = redis_server.admin
        admin.ping()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            admin.client_kill_filter(_type="pubsub")
            wait_until(lambda: "Redis is unavailable" in caplog.text, "noticed")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        redis_server.wait_listeners(1, "x")
        admin.publish("x", '{"data": "again"}')
        assert received(subscriber) == ["again"]


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Make each start of a thread fail: there is no memory for so large a stack."""
    size = threading.stack_size(1 << 62)
    try:
        yield
    finally:
        threading.stack_size(size)


class Seen(Subscriber):
    """A subscriber that weak references support."""


def test_a_subscription_without_a_thread(hub: Hub, redis_server: RedisServer) -> None:
    """If the loop can't start, nothing is kept, and the next loop does not serve it."""
    subscriber = Seen(LIMIT)
    seen = weakref.ref(subscriber)
    server, client = socket.socketpair()
    with server, client:
        with no_more_threads():
            with pytest.raises(RuntimeError, match="new thread"):
                hub.join(b"lost", subscriber, server)
            hub.leave(subscriber, server)
        with joined(hub, "x"):
            assert redis_server.listeners("lost") == 0
            assert not subscriber.is_open
            del subscriber
            assert seen() is None


def test_a_connection_without_a_thread(hub: Hub, redis_server: RedisServer) -> None:
    """If the loop can't start, the connection stays with the server."""

    def take() -> Connection:
        raise AssertionError("it is taken after every step that can fail")

    with no_more_threads(), pytest.raises(RuntimeError, match="new thread"):
        hub.adopt(b"lost", take)
    with joined(hub, "x"):
        assert redis_server.listeners("lost") == 0


def test_a_subscription_that_ends_after_its_loop(hub: Hub, redis_server: RedisServer) -> None:
    """It needs no new loop, which an interpreter that is shutting down could not start."""
    with joined(hub, "x") as subscriber:
        hub.stop()
        assert subscriber.has_ended()
        wait_until(lambda: hub_threads() == 0, "the loop has ended")
    assert hub_threads() == 0


def test_streams_that_the_garbage_collector_closes(hub: Hub, redis_server: RedisServer) -> None:
    """It may run at any time, also while another subscription begins or ends."""
    server, client = socket.socketpair()
    others: list[Subscriber] = []

    def leave() -> None:
        with suppress(IndexError):
            hub.leave(others.pop(), server)

    def use() -> None:
        hub.join(b"other", other := Subscriber(LIMIT), server)
        others.append(other)
        hub.join(b"x", subscriber := Subscriber(LIMIT))
        hub.leave(subscriber)
        leave()

    with server, client:
        run_with_interruptions(use, leave)
        with joined(hub, "last"):
            channels = redis_server.admin.pubsub_channels
            wait_until(lambda: channels() == [b"last"], "the other subscriptions have ended", 30)


def test_what_is_left_is_told(redis_server: RedisServer) -> None:
    """A connection says that there is more data, which a selector may not see."""
    with closing(PubSubConnection(redis.Redis(port=redis_server.port))) as connection:
        assert connection.socket is not None
        connection.subscribe([b"x"])
        wait_until(lambda: list(connection.read(1000)) == [Subscribed(b"x")], "confirmed")
        pipeline = redis_server.admin.pipeline(transaction=False)
        for _ in range(100):
            pipeline.publish("x", b"y" * 100)
        pipeline.execute()
        assert connection.socket is not None
        arrived = 0
        while arrived < 100:
            arrived += len(list(connection.read(1000)))
            if arrived < 100 and not connection.has_more:
                # The rest is still with Redis, and a selector sees it when it arrives.
                assert select.select([connection.socket], [], [], 30)[0]
        assert list(connection.read(1000)) == []
        assert not connection.has_more


def test_of_several_subscribes_the_last_is_confirmed(redis_server: RedisServer) -> None:
    """After subscribe, unsubscribe and subscribe, only the last answer confirms a channel."""
    with closing(PubSubConnection(redis.Redis(port=redis_server.port))) as connection:
        connection.subscribe([b"x"])
        connection.unsubscribe([b"x"])
        connection.subscribe([b"x"])
        assert not connection.is_confirmed(b"x")
        arrivals: list[object] = []

        def confirmed() -> bool:
            arrivals.extend(connection.read(1000))
            return connection.is_confirmed(b"x")

        wait_until(confirmed, "confirmed")
        assert arrivals == [Subscribed(b"x")]


def test_messages_without_a_redis(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first `next` says that there is no subscription, and the generator has ended."""
    monkeypatch.setattr("flask_sse._streaming.messages.CONFIRM_WITHIN", 0.2)
    redis_server.stop()
    app = Flask("tests")
    app.config["REDIS_URL"] = redis_server.url
    with app.app_context():
        messages = sse.messages()
        with pytest.raises(redis.ConnectionError, match="Redis has not confirmed"):
            next(messages)
        assert list(messages) == []


def test_a_forbidden_channel_concerns_nobody_else(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """If Redis forbids a channel, only the streams of that channel end."""
    redis_server.admin.execute_command(
        "ACL", "SETUSER", "limited", "on", ">secret", "+@all", "resetchannels", "&allowed*"
    )
    app = Flask("tests")
    app.config["REDIS_URL"] = redis_server.url.replace("//", "//limited:secret@")
    app.register_blueprint(sse, url_prefix="/stream")
    with open_stream(app, "allowed") as stream, app.app_context():
        [before] = redis_server.admin.client_list(_type="pubsub")
        for _ in range(3):
            with open_stream(app, "forbidden") as refused:
                assert refused.first.startswith(b"retry:")
                assert refused.read() == b""
        with pytest.raises(redis.ResponseError, match="permissions"):
            next(sse.messages("forbidden"))
        sse.publish("x", channel="allowed")
        assert stream.events(1)[0].data == "x"
        [after] = redis_server.admin.client_list(_type="pubsub")
        assert before["id"] == after["id"]
    assert "dropped subscription number 1, on channel 'forbidden'" in caplog.text
    assert "Redis is unavailable" not in caplog.text


def test_rubbish_does_not_fill_the_log(
    shared_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Only a few of many malformed events are logged, each with a short line."""
    app = Flask("tests")
    app.config["REDIS_URL"] = shared_redis.url
    app.register_blueprint(sse, url_prefix="/stream")
    with open_stream(app, "rubbish") as stream, app.app_context():
        pipeline = shared_redis.admin.pipeline(transaction=False)
        for _ in range(1000):
            pipeline.publish("rubbish", json.dumps({"data": "x", "type": "\n" * 10_000}))
        pipeline.execute()
        sse.publish("sound", channel="rubbish")
        assert stream.events(1)[0].data == "sound"
    # The hub of an earlier test may tell of its own Redis meanwhile.
    lines = [line for line in caplog.messages if "malformed" in line]
    assert len(lines) == 10
    assert max(map(len, lines)) < 400


def test_an_outage_is_told_once_for_all_clients(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that come one after the other during an outage are one outage."""
    monkeypatch.setattr("flask_sse._streaming.event_stream.CONFIRM_WITHIN", 0.2)
    app = Flask("tests")
    app.config["REDIS_URL"] = redis_server.url
    app.register_blueprint(sse, url_prefix="/stream")
    redis_server.stop()
    for _ in range(3):
        with open_stream(app) as refused:
            assert refused.first.startswith(b"retry:")
        wait_until(lambda: hub_threads() == 0, "the loop has ended")
    assert caplog.text.count("Redis is unavailable") == 1
    redis_server.start()
    monkeypatch.undo()
    with open_stream(app):
        assert caplog.text.count("Redis is back") == 1


def test_refused_subscriptions_hide_no_malformed_event(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients that open forbidden channels can't keep a broken publisher out of the log."""
    redis_server.admin.execute_command(
        "ACL", "SETUSER", "limited", "on", ">secret", "+@all", "resetchannels", "&allowed"
    )
    app = Flask("tests")
    app.config["REDIS_URL"] = redis_server.url.replace("//", "//limited:secret@")
    app.register_blueprint(sse, url_prefix="/stream")
    with open_stream(app, "allowed") as stream, app.app_context():
        for _ in range(5):
            with open_stream(app, "forbidden"):
                pass
        redis_server.admin.publish("allowed", "no JSON")
        sse.publish("sound", channel="allowed")
        assert stream.events(1)[0].data == "sound"
    assert "dropped malformed event number 1," in caplog.text
    assert "dropped subscription number 4," in caplog.text


@pytest.mark.parametrize("selector", ["SelectSelector", "PollSelector"])
def test_other_systems(
    selector: str, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams also work without epoll, with the selectors of Windows and macOS."""
    monkeypatch.setattr("flask_sse._system.greenlets.new_epoll", lambda: None)
    monkeypatch.setattr("selectors.DefaultSelector", getattr(selectors, selector))
    app = Flask("tests")
    app.config.update(REDIS_URL=shared_redis.url, SSE_KEEPALIVE=0.1)
    app.register_blueprint(sse, url_prefix="/stream")
    with app.app_context():
        for number in range(3):
            with open_stream(app, "other") as stream:
                sse.publish(str(number), channel="other")
                assert stream.events(1)[0].data == str(number)
                assert stream.read() == b":\n"
        shared_redis.wait_listeners(0, "other")


def test_a_host_that_cannot_be_encoded_is_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, without a traceback, and says what is wrong."""

    def connect() -> PubSubConnection:
        return PubSubConnection(redis.Redis(host="my..redis"))

    hub = Hub(partial(ServerSubscription, connect), Flask("tests").json, linger=0.1)
    subscriber = Subscriber(LIMIT)
    hub.join(b"x", subscriber)
    wait_until(lambda: "Redis is unavailable" in caplog.text, "logged")
    hub.leave(subscriber)
    wait_until(lambda: hub_threads() == 0, "the loop has ended")
    assert caplog.text.count("Redis is unavailable") == 1
    assert "Traceback" not in caplog.text
    assert "label" in caplog.text
