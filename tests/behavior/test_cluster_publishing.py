"""Publishing on a Redis Cluster of two nodes, while slots move and a node does not answer."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import trustme
from flask import Flask
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot

from flask_sse import ServerSentEventsBlueprint, history, sse
from flask_sse._redis import log_commands
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.publisher import repeat
from flask_sse._redis.cluster.route import Route
from flask_sse._redis.cluster.router import Router
from flask_sse._redis.log_commands import Executor
from flask_sse._redis.url import Address
from tests.support.processes import LOOPBACK, free_port
from tests.support.redis_cluster import RedisCluster as LabCluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

MakeApp = Callable[..., Flask]

COUNT: Final = "return redis.call('INCR', KEYS[1])"


class Cluster:
    """One or two primaries."""

    def __init__(self, *nodes: RedisServer) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The URL for ``REDIS_URL``."""
        return "redis+cluster://" + ",".join(f"{LOOPBACK}:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """Start the nodes, and wait until they know each other."""
        for node in self.nodes:
            node.options |= {
                "cluster-enabled": "yes",
                "cluster-config-file": f"nodes-{node.port}.conf",
                "cluster-port": str(free_port()),
                "cluster-node-timeout": "60000",
                "cluster-allow-replica-migration": "no",
            }
            node.start()
        first, *others = self.nodes
        self.nodes[-1].admin.execute_command("CLUSTER ADDSLOTSRANGE", 8192, 16383)
        first.admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 8191)
        for node in others:
            port = node.options["cluster-port"]
            first.admin.execute_command("CLUSTER MEET", LOOPBACK, node.port, port)
        wait_until(lambda: all(map(self.is_complete, self.nodes)), "a cluster that is complete")

    def is_complete(self, node: RedisServer) -> bool:
        """Whether a node knows the others, and who has the slots."""
        info: Any = node.admin.execute_command("CLUSTER INFO")
        return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", f"{len(self.nodes)}")

    def owner(self, channel: bytes) -> RedisServer:
        """Wait until a node has a channel, and return it."""
        owners: list[RedisServer] = []

        def has_owner() -> bool:
            owners[:] = [node for node in self.nodes if _has(node, channel)]
            return bool(owners)

        # While a slot moves, each of two nodes may say that the other one has it.
        wait_until(has_owner, f"a node has {channel!r}")
        return owners[0]

    def other(self, channel: bytes) -> RedisServer:
        """Return the node that does not have a channel."""
        [other] = {*self.nodes} - {self.owner(channel)}
        return other

    def move(self, channel: bytes, *states: str) -> None:
        """Move the slot of a channel to the other node, or begin to."""
        source, target = self.owner(channel), self.other(channel)
        slot = key_slot(channel)
        if states[0] == "NODE":
            # Otherwise what the source still says about the slot may count for more.
            wait_until(
                lambda: _epoch(target, "current") >= _epoch(source, "my"),
                "the target knows the epoch of the source",
            )
            target.admin.execute_command("CLUSTER BUMPEPOCH")
        for node, state, of in zip((target, source), states, (source, target), strict=True):
            name = (target if state == "NODE" else of).admin.execute_command("CLUSTER MYID")
            node.admin.execute_command("CLUSTER SETSLOT", slot, state, name)

    def stop(self) -> None:
        """Stop the nodes."""
        for node in self.nodes:
            node.stop()


def _epoch(node: RedisServer, kind: str) -> int:
    """Return an epoch that a node knows: its own, or the latest in the cluster."""
    info: Any = node.admin.execute_command("CLUSTER INFO")
    return int(info[f"cluster_{kind}_epoch"])


def _has(node: RedisServer, channel: bytes) -> bool:
    """Whether a node has a channel."""
    try:
        node.admin.execute_command("EXISTS", channel)
    except redis.ResponseError:
        return False
    return True


@contextmanager
def running(*nodes: RedisServer) -> Iterator[Cluster]:
    """Start a cluster, and stop it in the end."""
    cluster = Cluster(*nodes)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster, whose slots a test may move."""
    folder = tmp_path_factory.mktemp("cluster")
    with running(RedisServer(folder), RedisServer(folder)) as cluster:
        yield cluster


class Subscriber:
    """A connection to one node that is subscribed to a channel."""

    def __init__(self, node: RedisServer, channel: bytes) -> None:
        self._connection: Any = redis.Connection(LOOPBACK, node.port, protocol=2)
        self._connection.send_command("SSUBSCRIBE", channel)
        assert self._connection.read_response()[0] == b"ssubscribe"

    def until(self, last: str) -> list[str]:
        """Return the data of the events that arrive, up to the last one."""
        found: list[str] = []
        while last not in found:
            kind, _, payload = self._connection.read_response()
            assert kind == b"smessage"
            found.append(json.loads(payload)["data"])
        return found

    def close(self) -> None:
        """Disconnect."""
        self._connection.disconnect()


@contextmanager
def routed(cluster: Cluster, channel: bytes, **options: object) -> Iterator[Route]:
    """Return the way to the node of a channel, as a publisher has it."""
    addresses = [Address(LOOPBACK, node.port) for node in cluster.nodes]
    with closing_router(Router(ClusterNodes(addresses, options))) as router:
        yield Route(router, channel)


@contextmanager
def closing_router(router: Router) -> Iterator[Router]:
    """Close the connections of a router in the end."""
    try:
        yield router
    finally:
        router.disconnect()


def publish(blueprint: ServerSentEventsBlueprint, data: str, channel: Any) -> int:
    """Publish to a channel whose name is bytes, which the documented types don't allow."""
    return blueprint.publish(data, channel=channel)


def own_blueprint(client: object) -> ServerSentEventsBlueprint:
    """Return a blueprint whose `redis` is overridden."""

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> Any:
            return client

    return Own("own", __name__)


@pytest.fixture
def client(cluster: Cluster) -> Iterator[RedisCluster]:
    """Return an application's client for the cluster, with the retries that redis-py has."""
    nodes = [ClusterNode(LOOPBACK, node.port) for node in cluster.nodes]
    with RedisCluster(startup_nodes=nodes, socket_timeout=1) as client:
        yield client


@pytest.mark.parametrize("name", [b"", b"\xff\xfe", b"x}", b"a{b}c", b"{}x", b"a b"])
def test_odd_names(make_app: MakeApp, cluster: Cluster, client: RedisCluster, name: bytes) -> None:
    """An event reaches the node of its channel before and after the slot moves."""
    app = make_app(REDIS_URL=cluster.url)
    with app.app_context():
        for blueprint in (sse, own_blueprint(client)):
            for number in range(3):
                with closing(Subscriber(cluster.owner(name), name)) as subscriber:
                    assert publish(blueprint, f"{number}", name) == 1
                    assert subscriber.until(f"{number}") == [f"{number}"]
                cluster.move(name, "NODE", "NODE")


@pytest.mark.parametrize("is_overridden", [False, True])
def test_no_answer(
    make_app: MakeApp, cluster: Cluster, client: RedisCluster, channel: str, *, is_overridden: bool
) -> None:
    """If a node does not answer, an event is sent once, whatever the client's own retries are."""
    app = make_app(REDIS_URL=f"{cluster.url}?socket_timeout=1")
    blueprint = own_blueprint(client) if is_overridden else sse
    name = channel.encode()
    node = cluster.owner(name)
    with app.app_context(), closing(Subscriber(node, name)) as subscriber:
        publish(blueprint, "before", name)
        node.freeze()
        try:
            with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
                publish(blueprint, "once", name)
        finally:
            node.thaw()
        publish(blueprint, "last", name)
        assert subscriber.until("last") == ["before", "once", "last"]


def test_a_script_is_repeated(cluster: Cluster, channel: str) -> None:
    """After a lost answer, a script is run again, and is told that it may have run before."""
    name = channel.encode()
    node = cluster.owner(name)
    told: list[bool] = []

    def run(executor: Executor, may_be_done: bool) -> int:
        told.append(may_be_done)
        if len(told) == 2:
            node.freeze()
        elif may_be_done:
            node.thaw()
        return int(executor.execute_command("EVAL", COUNT, 1, name))

    with routed(cluster, name, socket_timeout=1) as route:
        try:
            assert repeat(route, run) == 1
            # The first command is executed when the node goes on.
            assert repeat(route, run) == 3
        finally:
            node.thaw()
    assert told[:2] == [False, False]
    assert set(told[2:]) == {True}


def test_a_slot_that_is_being_moved(cluster: Cluster, channel: str) -> None:
    """A script follows ASK to the node that gets the slot, and MOVED afterwards."""
    name = channel.encode()
    source, target = cluster.owner(name), cluster.other(name)

    def run(executor: Executor, may_be_done: bool) -> int:
        assert not may_be_done
        return int(executor.execute_command("EVAL", COUNT, 1, name))

    with routed(cluster, name) as route:
        cluster.move(name, "IMPORTING", "MIGRATING")
        assert [repeat(route, run) for _ in range(2)] == [1, 2]
        numbers = [
            node.admin.execute_command("CLUSTER COUNTKEYSINSLOT", key_slot(name))
            for node in (source, target)
        ]
        assert numbers == [0, 1]
        of = target.admin.execute_command("CLUSTER MYID")
        for node in (target, source):
            node.admin.execute_command("CLUSTER SETSLOT", key_slot(name), "NODE", of)
        assert [repeat(route, run) for _ in range(2)] == [3, 4]


@pytest.mark.parametrize("is_overridden", [False, True])
@pytest.mark.parametrize("name", [b"", b"\xff\xfe", b"x}", b"a{b}c"])
def test_history_while_a_slot_is_moved(
    make_app: MakeApp, cluster: Cluster, client: RedisCluster, name: bytes, *, is_overridden: bool
) -> None:
    """Each event has the next place in the log, in all phases of a move, and is published."""
    blueprint = own_blueprint(client) if is_overridden else sse
    untyped: Any = name
    source, target = cluster.owner(name), cluster.other(name)
    of = target.admin.execute_command("CLUSTER MYID")

    def append() -> int:
        publish(blueprint, "x", name)
        return int(history.position(untyped, blueprint=blueprint).split(".")[1])

    with make_app(REDIS_URL=cluster.url, SSE_HISTORY=10).app_context():
        first = append()
        cluster.move(name, "IMPORTING", "MIGRATING")
        assert append() == first + 1
        source.admin.migrate(LOOPBACK, target.port, log_commands.key(name), 0, 10_000)
        assert append() == first + 2
        for node in (target, source):
            node.admin.execute_command("CLUSTER SETSLOT", key_slot(name), "NODE", of)
        with closing(Subscriber(target, name)) as subscriber:
            assert append() == first + 3
            assert subscriber.until("x") == ["x"]


@pytest.mark.parametrize(
    "command",
    [("return redis.call('GET')", 1, "a"), ("return 1", 2, "a", "b")],
    ids=["script", "CROSSSLOT"],
)
def test_an_error_that_stays(cluster: Cluster, command: tuple[str | int, ...]) -> None:
    """A script is run once if its error will not pass; the URL is not said to be wrong."""
    ran: list[bool] = []

    def run(executor: Executor, may_be_done: bool) -> object:
        ran.append(may_be_done)
        return executor.execute_command("EVAL", *command)

    error = pytest.raises(redis.ResponseError, match=r"^SSE_HISTORY needs")
    with routed(cluster, b"a") as route, error:
        repeat(route, run)
    assert ran == [False]


def test_a_node_that_is_away(make_app: MakeApp, cluster: Cluster, channel: str) -> None:
    """If the first node of the URL can't be reached, the next one is asked."""
    url = cluster.url.replace("://", f"://{LOOPBACK}:{free_port()},")
    with make_app(REDIS_URL=url).app_context():
        assert sse.publish("x", channel=channel) == 0


def test_no_node_answers(make_app: MakeApp) -> None:
    """The error says which nodes were asked, and later attempts ask again."""
    port = free_port()
    with make_app(REDIS_URL=f"redis+cluster://u:secret@{LOOPBACK}:{port}").app_context():
        for _ in range(2):
            with pytest.raises(redis.ConnectionError, match=f"{LOOPBACK}:{port}; check") as caught:
                sse.publish("x")
            assert "secret" not in str(caught.value)


def test_no_cluster(make_app: MakeApp, shared_redis: RedisServer) -> None:
    """A single Redis with the URL of a cluster is refused at once, and the remedy is named."""
    url = f"redis+cluster://{LOOPBACK}:{shared_redis.port}"
    with make_app(REDIS_URL=url, SSE_HISTORY={"log": 10}).app_context():
        for channel in ("sse", "log"):
            with pytest.raises(redis.ConnectionError, match="begin REDIS_URL with redis://"):
                sse.publish("x", channel=channel)


def test_the_first_event_after_a_failover(
    make_app: MakeApp, redis_cluster: LabCluster, channel: str
) -> None:
    """If a primary has been replaced meanwhile, the event is published on the new one at once."""
    name = channel.encode()
    with make_app(REDIS_URL=redis_cluster.url).app_context():
        assert sse.publish("x", channel=channel) == 0
        primary = redis_cluster.node_of(name)
        redis_cluster.kill(primary)
        redis_cluster.wait_replaced(primary, key_slot(name))
        # The new primary knows it first.
        redis_cluster.wait_ok()
        with closing(Subscriber(redis_cluster.node_of(name), name)) as subscriber:
            assert sse.publish("last", channel=channel) == 1
            assert subscriber.until("last") == ["last"]


def test_a_cluster_behind_another_url(make_app: MakeApp, cluster: Cluster, channel: str) -> None:
    """The first MOVED that a cluster sends to a client for one Redis names the URL to use."""
    names = [f"{channel}-{number}" for number in range(64)]
    text = rf"begin REDIS_URL with redis\+cluster://{LOOPBACK}:\d+ "
    with make_app(REDIS_URL=cluster.nodes[0].url, SSE_HISTORY=10).app_context():
        with pytest.raises(redis.ResponseError, match=text):
            _ = [sse.publish("x", channel=name) for name in names]
        with pytest.raises(redis.ResponseError, match=text):
            _ = [history.position(name) for name in names]


def test_an_old_server(make_app: MakeApp, tmp_path: Path, channel: str) -> None:
    """A cluster whose servers have no SPUBLISH is refused, with their version."""
    node = RedisServer(tmp_path)
    node.options["rename-command SPUBLISH"] = "NONE"
    with running(node) as cluster, make_app(REDIS_URL=cluster.url).app_context():
        version = node.admin.info("server")["redis_version"]
        with pytest.raises(redis.ResponseError, match=f"needs SPUBLISH.*this is Redis {version}"):
            sse.publish("x", channel=channel)


def test_tls_and_a_password(make_app: MakeApp, tmp_path: Path, channel: str) -> None:
    """All connections have the certificates and the login of the URL."""
    node = RedisServer.over_tls(tmp_path, trustme.CA())
    node.options |= {"tls-cluster": "yes", "requirepass": "secret", "masterauth": "secret"}
    with running(node):
        ca = node.options["tls-ca-cert-file"]
        address = f"{LOOPBACK}:{node.port}"
        url = f"rediss+cluster://:secret@{address}?ssl_ca_certs={ca}&ssl_check_hostname=true"
        with make_app(REDIS_URL=url).app_context():
            assert sse.publish("x", channel=channel) == 0
        for wrong, text in (
            (url.replace("secret", "other"), "password"),
            (url.partition("?")[0], "certificate verify failed"),
        ):
            error = pytest.raises(redis.ConnectionError, match=text)
            with make_app(REDIS_URL=wrong).app_context(), error:
                sse.publish("x", channel=channel)


def test_redis_of_a_cluster(make_app: MakeApp, cluster: Cluster) -> None:
    """`sse.redis` says how to make a client for the cluster."""
    app = make_app(REDIS_URL=cluster.url.replace("://", "://:secret@"))
    node = f"ClusterNode('{LOOPBACK}', {cluster.nodes[0].port})"
    with app.app_context(), pytest.raises(TypeError) as caught:
        _ = sse.redis
    assert f"RedisCluster(startup_nodes=[{node}, " in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_pipeline_does_not_publish(
    make_app: MakeApp, cluster: Cluster, client: RedisCluster
) -> None:
    """A pipeline of a cluster is refused, as one of a single Redis is."""
    blueprint = own_blueprint(client.pipeline())
    with make_app(REDIS_URL=cluster.url).app_context(), pytest.raises(TypeError, match="pipeline"):
        blueprint.publish("x")
