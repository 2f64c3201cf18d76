"""The Redis Cluster of the tests does what its methods say, and what servers do is as expected."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import trustme
from redis.crc import key_slot

from tests.support.cluster_node import ClusterNode
from tests.support.redis_cluster import RedisCluster, running_cluster
from tests.support.redis_programs import NEWER_SERVERS, program, servers
from tests.support.waiting import PATIENCE, wait_until

CHANNEL: Final = b"news"
SLOT: Final = key_slot(CHANNEL)


class Subscriber:
    """A connection to one node, which is subscribed to the channel."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub
        self.received: list[tuple[str, object]] = []
        """The kind of what has come, and a message's payload or the number of subscriptions."""

    def wait(self, number: int) -> list[tuple[str, object]]:
        """Wait until so much has come; return it."""
        wait_until(lambda: self._receive() >= number, f"{number} answers, not {self.received}")
        return self.received

    def _receive(self) -> int:
        message = self._pubsub.get_message(timeout=0.05)
        if message is not None:
            self.received.append((message["type"], message["data"]))
        return len(self.received)

    def hears_nothing(self) -> bool:
        """Whether nothing has come since the last time."""
        before = len(self.received)
        return self._receive() == before


@contextmanager
def subscribed(client: redis.Redis) -> Iterator[Subscriber]:
    """Subscribe to the channel until the block ends."""
    with client.pubsub() as pubsub:
        pubsub.ssubscribe(CHANNEL)
        subscriber = Subscriber(pubsub)
        assert subscriber.wait(1) == [("ssubscribe", 1)]
        yield subscriber


@contextmanager
def subscribed_as_clients_are(node: ClusterNode) -> Iterator[Subscriber]:
    """Subscribe at the address that the node announces, so through its proxy."""
    host, port = node.address
    with redis.Redis(host=host, port=port) as client, subscribed(client) as subscriber:
        yield subscriber


def other_primary(cluster: RedisCluster) -> ClusterNode:
    """Return a primary that does not have the channel's slot."""
    return next(node for node in cluster.primaries() if node is not cluster.owner(SLOT))


def test_a_whole_cluster(redis_cluster: RedisCluster) -> None:
    """It has three primaries with a replica each, and clients find it by the URL's nodes."""
    primaries = redis_cluster.primaries()
    assert [len(redis_cluster.replicas(node)) for node in primaries] == [1, 1, 1]
    assert redis_cluster.problem() is None
    scheme, _, rest = redis_cluster.url.partition("://")
    assert scheme == "redis+cluster"
    for address in rest.split(","):
        host, _, port = address.partition(":")
        with redis.RedisCluster(host=host, port=int(port)) as client:
            assert client.set("news", "kept")
            assert {node.port for node in client.get_primaries()} == {n.port for n in primaries}
    owner = redis_cluster.node_of(CHANNEL)
    assert owner.admin.get("news") == b"kept"
    assert owner.admin.execute_command("CLUSTER", "KEYSLOT", CHANNEL) == SLOT


def test_publishing_in_a_cluster(redis_cluster: RedisCluster) -> None:
    """Subscribers at the primary receive and are counted; those at a replica only receive."""
    owner = redis_cluster.node_of(CHANNEL)
    [replica] = redis_cluster.replicas(owner)
    with subscribed(replica.admin) as astray, subscribed(owner.admin) as subscriber:
        assert redis_cluster.publish(CHANNEL, b"x") == 1
        assert redis_cluster.subscribers(CHANNEL) == 1
        assert subscriber.wait(2)[1] == astray.wait(2)[1] == ("smessage", b"x")
    redis_cluster.wait_subscribers(0, CHANNEL)
    assert redis_cluster.publish(CHANNEL, b"y") == 0
    with pytest.raises(redis.ResponseError, match=f"MOVED|^{SLOT} "):
        other_primary(redis_cluster).admin.execute_command("SPUBLISH", CHANNEL, "z")


def test_moving_a_slot_of_a_cluster(redis_cluster: RedisCluster) -> None:
    """Keys move; meanwhile publishing goes astray; then the old node unsubscribes unasked."""
    source, to = redis_cluster.owner(SLOT), other_primary(redis_cluster)
    source.admin.set("news", "kept")
    called: list[object] = []

    def publish() -> None:
        with pytest.raises(redis.ResponseError, match=f"ASK|^{SLOT} "):
            source.admin.get("news")
        called.append(redis_cluster.publish(CHANNEL, b"heard"))
        with to.admin.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("ASKING")
            pipeline.execute_command("EVAL", _PUBLISHING, 1, "news", CHANNEL, "lost")
            called.append(pipeline.execute()[1])

    with subscribed(source.admin) as subscriber:
        redis_cluster.move_slot(SLOT, to, while_migrating=publish)
        assert called == [1, 0]
        assert subscriber.wait(3)[1:] == [("smessage", b"heard"), ("sunsubscribe", 0)]
    assert redis_cluster.node_of(CHANNEL) is to
    assert to.admin.get("news") == b"kept"


_PUBLISHING: Final = "redis.call('GET', KEYS[1]) return redis.call('SPUBLISH', ARGV[1], ARGV[2])"


def test_a_slot_of_a_cluster_that_does_not_move(redis_cluster: RedisCluster) -> None:
    """If the function in the middle fails, the slot stays, and the cluster is whole."""
    source, to = redis_cluster.owner(SLOT), other_primary(redis_cluster)
    with pytest.raises(ZeroDivisionError):
        redis_cluster.move_slot(SLOT, to, while_migrating=lambda: 1 // 0)
    redis_cluster.wait_ok()
    assert redis_cluster.owner(SLOT) is source


def test_a_failover_in_a_cluster(redis_cluster: RedisCluster) -> None:
    """Primary and replica change their roles, and the old primary unsubscribes its clients."""
    primary = redis_cluster.owner(SLOT)
    [replica] = redis_cluster.replicas(primary)
    with subscribed(primary.admin) as subscriber:
        assert redis_cluster.failover(primary) is replica
        assert subscriber.wait(2)[1] == ("sunsubscribe", 0)
        # It accepts the next one, although it is not the right node any more.
        with subscribed(primary.admin):
            assert redis_cluster.subscribers(CHANNEL) == 0
    assert redis_cluster.owner(SLOT) is replica
    assert redis_cluster.replicas(replica) == [primary]


@pytest.mark.long
def test_a_killed_node_of_a_cluster(redis_cluster: RedisCluster) -> None:
    """Its replica replaces it, and it comes back as that one's replica."""
    primary = redis_cluster.owner(SLOT)
    [replica] = redis_cluster.replicas(primary)
    redis_cluster.kill(primary)
    assert redis_cluster.wait_replaced(primary, SLOT) is replica
    redis_cluster.wait_ok()
    assert redis_cluster.publish(CHANNEL, b"x") == 0
    redis_cluster.restart(primary)
    assert redis_cluster.replicas(replica) == [primary]


def test_a_frozen_node_of_a_cluster(redis_cluster: RedisCluster) -> None:
    """It counts as absent; a test that leaves one behind does not disturb the next."""
    [replica] = redis_cluster.replicas(redis_cluster.owner(SLOT))
    replica.freeze()
    assert redis_cluster.problem() is None
    assert redis_cluster.replicas(redis_cluster.owner(SLOT)) == []
    redis_cluster.repair()
    assert redis_cluster.replicas(redis_cluster.owner(SLOT)) == [replica]


@pytest.mark.long
def test_a_new_node_of_a_cluster(redis_cluster: RedisCluster) -> None:
    """A node is added without slots, gets one, and gives it back before it goes."""
    before = redis_cluster.primaries()
    added = redis_cluster.add_node()
    assert redis_cluster.primaries() == before
    redis_cluster.move_slot(SLOT, added)
    assert redis_cluster.node_of(CHANNEL) is added
    added.admin.set("news", "kept")
    redis_cluster.remove_node(added)
    assert redis_cluster.owner(SLOT).admin.get("news") == b"kept"
    assert {len(node.rows()) for node in redis_cluster.nodes} == {6}


@pytest.mark.long
def test_a_cluster_that_starts_anew(redis_cluster: RedisCluster) -> None:
    """After a test that has removed one of the first nodes, a new cluster has three primaries."""
    removed = redis_cluster.owner(SLOT)
    redis_cluster.remove_node(removed)
    assert len(redis_cluster.primaries()) == 2
    redis_cluster.owner(SLOT).admin.set("news", "left behind")
    redis_cluster.repair()
    assert len(redis_cluster.primaries()) == 3
    assert removed not in redis_cluster.nodes
    assert redis_cluster.owner(SLOT).admin.get("news") is None


@pytest.mark.long
def test_a_partition_of_a_cluster(divisible_cluster: RedisCluster) -> None:
    """A node that nobody reaches is replaced; its clients learn about it when that is over."""
    primary = divisible_cluster.owner(SLOT)
    with subscribed_as_clients_are(primary) as subscriber:
        divisible_cluster.partition(primary)
        new = divisible_cluster.wait_replaced(primary, SLOT)
        # It does not know that yet.
        assert primary.admin.execute_command("SPUBLISH", CHANNEL, "late") == 1
        assert divisible_cluster.publish(CHANNEL, b"elsewhere") == 0
        assert subscriber.hears_nothing()
        divisible_cluster.heal(primary)
        assert subscriber.wait(3)[1:] == [("smessage", b"late"), ("sunsubscribe", 0)]
    assert divisible_cluster.replicas(new) == [primary]


def test_a_cluster_with_a_node_that_clients_lose(divisible_cluster: RedisCluster) -> None:
    """If only clients lose it, the cluster is whole; its connections may end with a reset."""
    primary = divisible_cluster.owner(SLOT)
    with socket.create_connection(primary.address, timeout=PATIENCE) as client:
        client.sendall(b"SSUBSCRIBE %b\r\n" % CHANNEL)
        assert client.recv(4096).startswith(b"*3\r\n$10\r\nssubscribe")
        divisible_cluster.partition(primary, from_nodes=False)
        assert divisible_cluster.publish(CHANNEL, b"lost") == 1
        wait_until(lambda: primary.proxies[0].held, "the event is held")
        assert divisible_cluster.problem() is None
        divisible_cluster.heal(primary, reset=True)
        with pytest.raises(ConnectionResetError):
            client.recv(4096)
    divisible_cluster.wait_subscribers(0, CHANNEL)
    assert divisible_cluster.owner(SLOT) is primary


@pytest.mark.long
def test_a_cluster_with_tls_and_a_password(tmp_path: Path) -> None:
    """Both are possible, also when keys move; the URL says so."""
    authority = trustme.CA()
    login = {"requirepass": "secret", "masterauth": "secret"}
    cluster = RedisCluster(tmp_path, authority=authority, options=login)
    with running_cluster(cluster, primaries=2, replicas=1):
        assert cluster.url.startswith("rediss+cluster://:secret@127.0.0.1:")
        source, to = cluster.owner(SLOT), other_primary(cluster)
        source.admin.set("news", "kept")
        cluster.move_slot(SLOT, to)
        assert to.admin.get("news") == b"kept"


@pytest.mark.long
@pytest.mark.parametrize(
    "check",
    [
        test_a_whole_cluster,
        test_publishing_in_a_cluster,
        test_moving_a_slot_of_a_cluster,
        test_a_slot_of_a_cluster_that_does_not_move,
        test_a_failover_in_a_cluster,
        test_a_killed_node_of_a_cluster,
        test_a_new_node_of_a_cluster,
    ],
)
def test_newer_servers_of_a_cluster(
    newer_cluster: RedisCluster, check: Callable[[RedisCluster], None]
) -> None:
    """Newer servers do the same."""
    check(newer_cluster)


@pytest.mark.long
def test_versions_of_cluster_servers() -> None:
    """Each program is the server that its name says."""
    found = dict(servers())
    assert [*found] == ["system", *NEWER_SERVERS]
    for name in NEWER_SERVERS:
        kind, _, version = name.partition("-")
        output = subprocess.check_output([found[name], "--version"], text=True)
        assert output.lower().startswith(f"{kind} server v={version}.")


@pytest.mark.long
def test_a_replica_of_a_cluster_that_changes_sides(newer_cluster: RedisCluster) -> None:
    """Newer servers unsubscribe the clients of a replica that gets another primary."""
    [replica] = newer_cluster.replicas(newer_cluster.owner(SLOT))
    with subscribed(replica.admin) as subscriber:
        replica.ask("REPLICATE", other_primary(newer_cluster).id)
        assert subscriber.wait(2)[1] == ("sunsubscribe", 0)


@pytest.mark.long
@pytest.mark.parametrize("covered", ["yes", "no"])
def test_a_cluster_without_some_slots(covered: str, tmp_path: Path) -> None:
    """By default, scripts with keys then fail on all nodes; publishing alone does not."""
    cluster = RedisCluster(tmp_path, options={"cluster-require-full-coverage": covered})
    with running_cluster(cluster, primaries=3, replicas=0):
        owner, lost = cluster.owner(SLOT), other_primary(cluster)
        cluster.kill(lost)
        state = "fail" if covered == "yes" else "ok"
        wait_until(lambda: _misses(owner, lost) and owner.state() == state, "the loss is known")
        with subscribed(owner.admin) as subscriber:
            assert owner.admin.execute_command("SPUBLISH", CHANNEL, "x") == 1
            assert subscriber.wait(2)[1] == ("smessage", b"x")
        if covered == "yes":
            with pytest.raises(redis.ResponseError, match="The cluster is down"):
                owner.admin.eval(_PUBLISHING, 1, "news", CHANNEL.decode(), "y")
        else:
            assert owner.admin.eval(_PUBLISHING, 1, "news", CHANNEL.decode(), "y") == 0


def _misses(node: ClusterNode, lost: ClusterNode) -> bool:
    return any(row.id == lost.id and "fail" in row.flags for row in node.rows())


@pytest.mark.long
def test_moving_slots_of_a_cluster_at_once(tmp_path: Path) -> None:
    """Valkey moves slots at once, and the old node unsubscribes its clients unasked."""
    cluster = RedisCluster(tmp_path, program=program("valkey-9"))
    with running_cluster(cluster):
        source, to = cluster.owner(SLOT), other_primary(cluster)
        source.admin.set("news", "kept")
        with subscribed(source.admin) as subscriber:
            cluster.move_slots_atomically(range(SLOT, SLOT + 10), to)
            assert subscriber.wait(2)[1] == ("sunsubscribe", 0)
        assert cluster.owner(SLOT + 9) is to
        assert to.admin.get("news") == b"kept"
