"""What the documentation says about a Redis Cluster, with a real one."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from flask import Flask
from redis.crc import key_slot

from flask_sse import history, sse
from tests.support.client import StreamClient
from tests.support.cluster_node import ClusterNode
from tests.support.cluster_state import SLOTS, problem
from tests.support.following import FollowingClient, Publisher, check
from tests.support.presence import use_presence
from tests.support.processes import LOOPBACK
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, gunicorn
from tests.support.strict_proxy import strict_proxy
from tests.support.waiting import wait_until

from .running import runs, shell

MakeApp = Callable[..., Flask]
Acl = Callable[..., str]

_NODE: Final = "10.89.0.11:6379"
_CALL: Final = f"redis-cli --cluster call {_NODE} ACL SETUSER app"
_ACL: Final = (
    f"{_CALL} on '>secret' '~flask-sse:*' '&*' +@connection +@pubsub",
    f"{_CALL} '+cluster|slots'",
)
_ACL_OF_HISTORY: Final = (
    f"{_CALL} +eval +evalsha +type +get +set +del +expire +pttl",
    f"{_CALL} +xadd +xrange +xrevrange",
)
_ACL_OF_PRESENCE: Final = (
    f"{_CALL} +eval +evalsha +time +hget +hgetall",
    f"{_CALL} +hset +hdel +pexpire +del",
)
_SPUBLISH: Final = """redis-cli -c SPUBLISH sse '{"data": {"message": "Hello!"}}'"""
_NUMSUB: Final = f"redis-cli --cluster call {_NODE} PUBSUB SHARDNUMSUB sse"
_CHANNELS: Final = ("sse", "a", "b", "c", "d")
"""Each node has some of them."""
_OTHER_NAMES: Final = ("sse", "users#1", "a{b}c", "x}", "a b")
_UNREACHABLE: Final = "127.0.0.99"
"""No server listens there."""


@pytest.fixture
def acl(redis_cluster: RedisCluster, tmp_path: Path) -> Iterator[Acl]:
    """Return a function that creates the user with commands, and returns its URL."""

    def create(*commands: str) -> str:
        for command in commands:
            said = shell(command.replace(_NODE, redis_cluster.start_nodes[0]), tmp_path)
            assert said.count(": OK") == len(redis_cluster.nodes), said
        return redis_cluster.url.replace("://", "://app:secret@")

    yield create
    for node in redis_cluster.nodes:
        admin: Any = node.admin
        admin.acl_deluser("app")


@runs(*_ACL)
def test_user_without_history(
    make_app: MakeApp, redis_cluster: RedisCluster, acl: Acl, tmp_path: Path
) -> None:
    """The user may publish and receive on all nodes, but may not keep events."""
    url = acl(*_ACL)
    app = make_app(REDIS_URL=url)
    with gunicorn(tmp_path, settings={"REDIS_URL": url}) as site, app.app_context():
        for channel in _CHANNELS:
            with StreamClient(site.port, channel).open() as stream:
                assert sse.publish("x", channel=channel) == 1
                assert stream.wait_events(1)[0].data == "x"
    app = make_app(REDIS_URL=url, SSE_HISTORY=10)
    with app.app_context(), pytest.raises(redis.ResponseError, match="SSE_HISTORY needs"):
        sse.publish("x")


def test_user_who_may_not_look(make_app: MakeApp, redis_cluster: RedisCluster, acl: Acl) -> None:
    """Without the second command, the error names the permissions, as the page quotes it."""
    app = make_app(REDIS_URL=acl(_ACL[0]))
    text = _quoted("needs the permission +cluster|slots")
    with app.app_context(), pytest.raises(redis.ConnectionError, match=text):
        sse.publish("x")


@runs(*_ACL_OF_HISTORY)
def test_user_with_history(make_app: MakeApp, redis_cluster: RedisCluster, acl: Acl) -> None:
    """The user may also keep and read events, even of a channel that is being moved."""
    app = make_app(REDIS_URL=acl(*_ACL, *_ACL_OF_HISTORY), SSE_HISTORY=10)

    def publish(data: str, channel: str) -> None:
        with app.app_context():
            sse.publish(data, channel=channel)

    for channel in _CHANNELS:
        with app.app_context():
            start = history.position(channel)
            messages = history.messages(channel, after=start)
        with closing(messages):
            publish("x", channel)
            assert next(messages).data == "x"
            slot = key_slot(channel.encode())
            owner = redis_cluster.owner(slot)
            to = next(node for node in redis_cluster.primaries() if node is not owner)
            redis_cluster.move_slot(slot, to, while_migrating=partial(publish, "y", channel))
            assert next(messages).data == "y"


@runs(*_ACL_OF_PRESENCE)
def test_user_with_presence(
    redis_cluster: RedisCluster, acl: Acl, tmp_path: Path, channel: str
) -> None:
    """The user may also keep members."""
    url = acl(*_ACL, *_ACL_OF_PRESENCE)
    use_presence(tmp_path, url, channel, redis_cluster.node_of(channel.encode()).admin)


@runs(_SPUBLISH, _NUMSUB)
def test_redis_cli(redis_cluster: RedisCluster, tmp_path: Path) -> None:
    """It publishes at the node that has the channel, and one node counts the subscriptions."""
    host, port = redis_cluster.nodes[0].address
    with (
        gunicorn(tmp_path, settings={"REDIS_URL": redis_cluster.url}) as site,
        StreamClient(site.port, "sse").open() as stream,
    ):
        shell(_SPUBLISH.replace("redis-cli", f"redis-cli -h {host} -p {port}"), tmp_path)
        assert json.loads(stream.wait_events(1)[0].data) == {"message": "Hello!"}
        said = shell(_NUMSUB.replace(_NODE, redis_cluster.start_nodes[0]), tmp_path)
        numbers = [line for line in said.splitlines() if line in {"0", "1"}]
        assert sorted(numbers) == ["0"] * 5 + ["1"]


def test_what_other_examples_need(redis_cluster: RedisCluster, tmp_path: Path) -> None:
    """The application's own client finds all channels with listeners, for heartbeats."""
    host, port = redis_cluster.nodes[0].address
    with ExitStack() as stack:
        site = stack.enter_context(gunicorn(tmp_path, settings={"REDIS_URL": redis_cluster.url}))
        for channel in _CHANNELS:
            stack.enter_context(StreamClient(site.port, channel)).open()
        client: Any = stack.enter_context(redis.RedisCluster(host=host, port=port))
        found = client.pubsub_shardchannels("*", target_nodes=redis.RedisCluster.PRIMARIES)
        assert sorted(name.decode() for name in found) == sorted(_CHANNELS)


@pytest.mark.long
def test_moving_to_a_cluster(
    make_app: MakeApp, shared_redis: RedisServer, redis_cluster: RedisCluster, tmp_path: Path
) -> None:
    """A client gets exactly one reset, and misses nothing after it."""
    channel = "moving"
    old = {"REDIS_URL": shared_redis.url, "SSE_HISTORY": 100}
    new = {"REDIS_URL": redis_cluster.url, "SSE_HISTORY": 100}
    before, after = make_app(**old), make_app(**new)
    with ExitStack() as clients:
        with gunicorn(tmp_path, settings=old) as site:
            client = clients.enter_context(FollowingClient(site.port, channel))
            _publish(before, channel, range(10))
            client.wait_number(9)
            # The processes that only publish may change first.
            _publish(after, channel, range(10, 20))
        with gunicorn(tmp_path, port=site.port, settings=new) as site:
            client.wait_connections(2)
            client.wait_position(after)
            _publish(after, channel, range(20, 30))
            client.wait_number(29)
            client.cut()
            client.wait_connections(3)
            _publish(after, channel, range(30, 40))
            client.wait_number(39)
            clients.close()
    assert client.numbers() == [*range(10), *range(20, 40)]
    assert client.resets() == 1
    check(client.events)


def test_cluster_behind_the_url_of_one_redis(
    make_app: MakeApp, redis_cluster: RedisCluster, tmp_path: Path
) -> None:
    """With history, it is refused; without, sharded Pub/Sub and classic Pub/Sub don't meet."""
    url = f"redis://{redis_cluster.start_nodes[0]}"
    app = make_app(REDIS_URL=url, SSE_HISTORY=10)
    elsewhere = next(
        name
        for name in _CHANNELS
        if redis_cluster.node_of(name.encode()).address[1]
        not in {redis_cluster.nodes[0].address[1]}
    )
    text = _quoted("this Redis is part of a cluster")
    with app.app_context(), pytest.raises(redis.ResponseError, match=text):
        sse.publish("x", channel=elsewhere)
    classic = make_app(REDIS_URL=url)
    sharded = make_app(REDIS_URL=redis_cluster.url)
    with (
        gunicorn(tmp_path, settings={"REDIS_URL": url}) as site,
        StreamClient(site.port, elsewhere).open() as stream,
    ):
        with sharded.app_context():
            assert sse.publish("sharded", channel=elsewhere) == 0
        with classic.app_context():
            assert sse.publish("classic", channel=elsewhere) == 1
        assert stream.wait_events(1)[0].data == "classic"


def test_one_redis_behind_the_url_of_a_cluster(
    make_app: MakeApp, shared_redis: RedisServer
) -> None:
    """The error names the URL to use."""
    app = make_app(REDIS_URL=shared_redis.url.replace("redis://", "redis+cluster://"))
    text = _quoted("is not part of a Redis Cluster")
    with app.app_context(), pytest.raises(redis.ConnectionError, match=text):
        sse.publish("x")


def test_unreachable_node_of_a_cluster(make_app: MakeApp, tmp_path: Path) -> None:
    """If a node announces an address that can't be reached, the error names that address."""
    node = ClusterNode(tmp_path / "node", None, LOOPBACK)
    node.options["cluster-announce-ip"] = _UNREACHABLE
    try:
        node.start()
        node.ask("ADDSLOTSRANGE", 0, SLOTS - 1)
        wait_until(lambda: problem([node]) is None, "the node has all slots")
        app = make_app(REDIS_URL=f"redis+cluster://{LOOPBACK}:{node.port}")
        with app.app_context(), pytest.raises(redis.ConnectionError, match=_UNREACHABLE):
            sse.publish("x")
    finally:
        node.close()


@pytest.mark.parametrize(
    "channel",
    ["{}x", *(pytest.param(name, marks=pytest.mark.long) for name in _OTHER_NAMES)],
)
def test_managed_service_like_a_cluster(make_app: MakeApp, tmp_path: Path, channel: str) -> None:
    """Behind a strict endpoint that moves and forgets scripts, no event is lost or repeated."""
    with strict_proxy(tmp_path / "node") as proxy:
        settings = {"REDIS_URL": proxy.url, "SSE_HISTORY": 1000}
        app = make_app(**settings)
        with (
            gunicorn(tmp_path, settings=settings) as site,
            FollowingClient(site.port, channel) as client,
            Publisher(app, channel) as publisher,
        ):
            for _ in range(2):
                publisher.wait(20)
                proxy.move()
            publisher.wait(20)
            last = publisher.stop()
            client.wait_number(last)
        assert client.numbers() == [*range(last + 1)]
        assert client.resets() == 0
        assert not publisher.failures
        assert not proxy.refused
        assert proxy.forgotten


def _quoted(text: str) -> str:
    """Return a pattern for a part of an error that the page on troubleshooting quotes."""
    page = (ROOT / "docs" / "troubleshooting.rst").read_text(encoding="utf-8")
    assert f"``{text}``" in page
    return re.escape(text)


def _publish(app: Flask, channel: str, numbers: Iterable[int]) -> None:
    with app.app_context():
        for number in numbers:
            sse.publish(number, channel=channel)
