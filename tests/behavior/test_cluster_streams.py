"""Streams and messages on a Redis Cluster: any channel, on any node, however clients connect."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import chain, islice
from threading import Thread
from typing import Any

import pytest
import trustme
from flask import Flask

from flask_sse import Message, history, sse
from flask_sse._hub import service
from flask_sse._streaming import event_stream
from flask_sse._streaming import messages as reading
from flask_sse.testing import open_stream
from tests.support.cluster_channels import ODD_NAMES, channel_of_each, channels_by_node
from tests.support.redis_cluster import RedisCluster, running_cluster
from tests.support.redis_server import RedisServer
from tests.support.strict_proxy import StrictProxy, strict_proxy
from tests.support.waiting import PATIENCE, wait_until

MakeApp = Callable[..., Flask]


@contextmanager
def hearing(messages: Generator[Message, None, None], number: int) -> Iterator[list[Message]]:
    """Fill a list with the next messages; when the block ends, all have come."""
    heard: list[Message] = []

    thread = Thread(target=lambda: heard.extend(islice(messages, number)))
    thread.start()
    yield heard
    thread.join(PATIENCE)
    messages.close()


def use(app: Flask, channel: Any) -> None:
    """Publish on a channel with and without history, and receive everything in each way."""
    with app.app_context():
        start = history.position(channel)
        for number in range(3):
            sse.publish(number, channel=channel)
        with closing(history.messages(channel, start)) as messages:
            assert [next(messages).data for _ in range(3)] == [0, 1, 2]
            sse.publish(3, channel=channel)
            last = next(messages)
            assert (last.data, last.id) == (3, history.position(channel))


def use_stream(app: Flask, channel: str) -> None:
    """Publish on a channel with history, and receive everything from two streams."""
    with app.app_context(), open_stream(app, channel) as stream:
        opening = stream.get()
        sse.publish("live", channel=channel)
        assert stream.get().data == "live"
        with open_stream(app, channel, last_event_id=str(opening.id)) as resumed:
            assert resumed.get().json == {"channel": channel, "recovered": True}
            sse.publish("both", channel=channel)
            assert stream.get().data == "both"
            assert [resumed.get().data for _ in range(2)] == ["live", "both"]
        with open_stream(app, channel, last_event_id="unknown") as lost:
            assert [lost.get().type for _ in range(2)] == ["sse.open", "sse.reset"]


def use_plain(app: Flask, channel: str) -> None:
    """Publish on a channel without history, and receive it from a stream."""
    with app.app_context(), open_stream(app, channel) as stream:
        for number in range(3):
            assert sse.publish(number, channel=channel) == 1
            assert stream.get().json == number


def use_all(make_app: MakeApp, url: str, channels: Sequence[str]) -> None:
    """Use channels in each way: all of them without history, and one in each way with it."""
    plain, logged = make_app(REDIS_URL=url), make_app(REDIS_URL=url, SSE_HISTORY=10)
    for name in channels:
        use_plain(plain, name)
    for name, run in zip(channels, (use, use_stream), strict=False):
        run(logged, name)


@pytest.mark.parametrize("name", [*ODD_NAMES, b"\xff{\xfe}"], ids=range(len(ODD_NAMES) + 1))
def test_odd_names(make_app: MakeApp, redis_cluster: RedisCluster, name: str | bytes) -> None:
    """Each name of a channel works for publishing, streams, messages and history."""
    app = make_app(REDIS_URL=redis_cluster.url)
    logged = make_app(REDIS_URL=redis_cluster.url, SSE_HISTORY=10)
    use(logged, name)
    # A stream can't be opened for bytes that are not UTF-8, and without a name it is another one.
    if name and isinstance(name, str):
        use_stream(logged, name)
        use_plain(app, name)
    with app.app_context():
        untyped: Any = name
        with hearing(sse.messages(untyped), 2) as heard:
            encoded = name.encode() if isinstance(name, str) else name
            redis_cluster.wait_subscribers(1, encoded)
            for number in range(2):
                assert sse.publish(number, channel=untyped) == 1
        assert [message.data for message in heard] == [0, 1]


@pytest.mark.long
def test_newer_servers(make_app: MakeApp, newer_cluster: RedisCluster, channel: str) -> None:
    """Newer servers are used in each way, too, with any name of a channel."""
    use_all(make_app, newer_cluster.url, [*channel_of_each(newer_cluster, channel), *ODD_NAMES[1:]])
    for name in ODD_NAMES:
        use(make_app(REDIS_URL=newer_cluster.url, SSE_HISTORY=10), name)


@pytest.mark.parametrize(("kept", "each"), [(0, 167), (10, 40)], ids=["off", "history"])
def test_many_channels(
    make_app: MakeApp, redis_cluster: RedisCluster, channel: str, kept: int, each: int
) -> None:
    """Many channels on each node get their own events, each once, over one connection a node."""
    app = make_app(REDIS_URL=redis_cluster.url, SSE_HISTORY=kept)
    names = [*chain(*channels_by_node(redis_cluster, channel, each).values())]
    with app.app_context(), ExitStack() as stack:
        streams = {name: stack.enter_context(open_stream(app, name)) for name in names}
        for node in redis_cluster.primaries():
            assert len(node.admin.client_list("pubsub")) == 1
            subscribed: Any = node.admin.execute_command("PUBSUB", "SHARDCHANNELS")
            assert len(subscribed) == each
        for text in ("first", "last"):
            for name in names:
                assert sse.publish(f"{text} {name}", channel=name) == 1
        for name, stream in streams.items():
            if kept:
                assert stream.get().type == "sse.open"
            assert [stream.get().data for _ in range(2)] == [f"first {name}", f"last {name}"]
            with pytest.raises(TimeoutError):
                stream.get(0)


def test_a_move_from_one_redis_to_a_cluster(
    make_app: MakeApp, shared_redis: RedisServer, redis_cluster: RedisCluster, channel: str
) -> None:
    """Logs start anew there: a client that comes back gets one reset, and misses nothing more."""
    before, after = (
        make_app(REDIS_URL=url, SSE_HISTORY=10) for url in (shared_redis.url, redis_cluster.url)
    )
    with before.app_context(), open_stream(before, channel) as stream:
        sse.publish("before", channel=channel)
        assert [stream.get().data for _ in range(2)][1] == "before"
    with after.app_context():
        sse.publish("missed", channel=channel)
        with open_stream(after, channel, last_event_id=stream.last_event_id) as resumed:
            assert [resumed.get().type for _ in range(2)] == ["sse.open", "sse.reset"]
        sse.publish("after", channel=channel)
        with open_stream(after, channel, last_event_id=resumed.last_event_id) as again:
            assert again.get().json == {"channel": channel, "recovered": True}
            assert again.get().data == "after"


def test_a_channel_without_listeners(
    make_app: MakeApp, redis_cluster: RedisCluster, channel: str
) -> None:
    """When its last stream has ended, a node sends nothing for it; other channels stay."""
    app = make_app(REDIS_URL=redis_cluster.url)
    first, other = channels_by_node(redis_cluster, channel, 2).popitem()[1]
    with app.app_context(), open_stream(app, other) as stream:
        for number in range(3):
            with open_stream(app, first) as one, open_stream(app, first) as two:
                assert sse.publish(number, channel=first) == 1
                assert one.get() == two.get() == Message(number)
            redis_cluster.wait_subscribers(0, first.encode())
        sse.publish("x", channel=other)
        assert stream.get().data == "x"


@pytest.fixture(scope="module")
def guarded_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Return a cluster that only speaks TLS, and only to users who know a password."""
    cluster = RedisCluster(
        tmp_path_factory.mktemp("guarded-cluster"),
        authority=trustme.CA(),
        options={"requirepass": "secret", "masterauth": "secret"},
    )
    with running_cluster(cluster, replicas=0):
        yield cluster


def url_of(cluster: RedisCluster, login: str = ":secret") -> str:
    """Return the URL with a login, which has the cluster's own certificates checked."""
    [authority] = {cluster.nodes[0].options["tls-ca-cert-file"]}
    addresses = ",".join(cluster.start_nodes)
    return f"rediss+cluster://{login}@{addresses}?ssl_ca_certs={authority}"


@pytest.fixture
def patient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients wait for longer: a busy machine takes seconds for all handshakes of TLS."""
    for module in (service, event_stream, reading):
        monkeypatch.setattr(module, "CONFIRM_WITHIN", PATIENCE)


@pytest.mark.usefixtures("patient_clients")
def test_tls_and_a_password(make_app: MakeApp, guarded_cluster: RedisCluster, channel: str) -> None:
    """Each connection of publishing, streams and history has both."""
    use_all(make_app, url_of(guarded_cluster), channel_of_each(guarded_cluster, channel))


@pytest.mark.usefixtures("patient_clients")
def test_a_user_with_few_rights(
    make_app: MakeApp, guarded_cluster: RedisCluster, channel: str
) -> None:
    """A user of an access control list needs no more than the documentation says."""
    login = ["reset", "on", ">pass word", "~flask-sse:*", "&*", "+@connection", "+@pubsub"]
    scripts = "eval evalsha type get set del expire pttl xadd xrange xrevrange cluster|slots"
    rules = (*login, *(f"+{name}" for name in f"{scripts} command info".split()))
    for node in guarded_cluster.nodes:
        node.admin.execute_command("ACL", "SETUSER", "few", *rules)
    url = url_of(guarded_cluster, "few:pass%20word")
    use_all(make_app, url, channel_of_each(guarded_cluster, channel))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictProxy]:
    """Return the stand-in for a managed service, which forgets each second script."""
    folder = tmp_path_factory.mktemp("strict-cluster") / "node"
    with strict_proxy(folder, forgets_every=2) as proxy:
        yield proxy


@pytest.mark.parametrize("name", ["news", "{", "a{b}c"])
def test_one_endpoint(make_app: MakeApp, proxy: StrictProxy, name: str) -> None:
    """A managed service that is strict about slots, and forgets scripts, is used in each way."""
    forgotten = proxy.forgotten
    logged = make_app(REDIS_URL=proxy.url, SSE_HISTORY=10)
    use(logged, name)
    use_stream(logged, name)
    use_plain(make_app(REDIS_URL=proxy.url), name)
    assert proxy.forgotten > forgotten
    assert proxy.refused == []


def test_an_endpoint_that_moves(make_app: MakeApp, proxy: StrictProxy, channel: str) -> None:
    """Streams stay open when it moves, and subscribe again."""
    name = channel.encode()

    def subscribers() -> int:
        answer: Any = proxy.node.admin.execute_command("PUBSUB", "SHARDNUMSUB", name)
        return int(answer[1])

    app = make_app(REDIS_URL=proxy.url)
    with app.app_context(), open_stream(app, channel, timeout=PATIENCE) as stream:
        for number in range(3):
            with proxy.moving():
                wait_until(lambda: subscribers() == 0, "the subscription has ended")
            wait_until(lambda: subscribers() == 1, "the stream is subscribed again")
            sse.publish(number, channel=channel)
            assert stream.get().json == number
    assert proxy.refused == []


def test_history_of_an_endpoint_that_moves(
    make_app: MakeApp, proxy: StrictProxy, channel: str
) -> None:
    """Nothing is lost, repeated or out of order if it moves while events are published."""
    app = make_app(REDIS_URL=proxy.url, SSE_HISTORY=1000)
    published = 0

    def publish() -> None:
        nonlocal published
        with app.app_context():
            for number in range(400):
                sse.publish(number, channel=channel)
                published += 1

    def are_published(goal: int) -> bool:
        return published >= goal

    thread = Thread(target=publish)
    with open_stream(app, channel, timeout=PATIENCE) as stream:
        thread.start()
        for goal in (100, 200, 300):
            wait_until(partial(are_published, goal), "some are published")
            proxy.move()
        thread.join(PATIENCE)
        assert stream.get().type == "sse.open"
        assert [stream.get().data for _ in range(400)] == [str(number) for number in range(400)]
    assert proxy.refused == []
