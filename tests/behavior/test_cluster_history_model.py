"""The same model of history on a Redis Cluster, while slots move and primaries fail over."""

from collections.abc import Sequence
from typing import ClassVar

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import rule
from redis.crc import key_slot

from flask_sse._log.position import Position
from flask_sse._redis import upstream
from flask_sse._redis.cluster import log_reader, subscription
from flask_sse._redis.cluster.logs import NodeLogs
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.publisher import ClusterPublisher
from flask_sse._redis.log_commands import NewEntry
from flask_sse._redis.log_source import Command
from flask_sse._redis.upstream import Upstream
from flask_sse._redis.url import Address
from tests.behavior.test_history_model import HistoryMachine, LossyConnection, hasty, run
from tests.support.redis_cluster import RedisCluster
from tests.support.waiting import PATIENCE

__all__ = ["hasty"]


class ClusterHistoryMachine(HistoryMachine):
    """Two processes, a cluster that loses and forgets, and clients that come and go."""

    cluster: ClassVar[RedisCluster]
    current: ClassVar["ClusterHistoryMachine"]

    @property
    def admin(self) -> redis.Redis:
        """A client of the node that has the log."""
        return self.cluster.node_of(self.channel).admin

    def make_upstream(self) -> Upstream:
        """Return what the hubs need to know, and note their connections."""
        ClusterHistoryMachine.current = self
        start = [Address(*node.address) for node in self.cluster.nodes]
        nodes = ClusterNodes(start, {})
        self.publisher = ClusterPublisher(nodes)
        return upstream.of_cluster(nodes)

    def append(self, event: NewEntry) -> None:
        """Publish an event with history."""
        self.publisher.append(self.channel, event)

    def find_top(self) -> Position:
        """Ask for the newest position once."""
        return self.publisher.position(self.channel)

    def publish_payload(self, payload: str) -> None:
        """Publish something without history."""
        self.cluster.publish(self.channel, payload.encode())

    def kill_connections(self) -> None:
        """Close all connections to all nodes."""
        for node in self.cluster.nodes:
            node.kill_pubsub()
            node.admin.client_kill_filter(_type="normal", skipme=True)

    def close(self) -> None:
        """Close what the machine itself has opened."""
        self.publisher.disconnect()

    @rule(number=st.integers(0, 1), published=st.sampled_from([0, 0, 1, 3]))
    def move_slot(self, number: int, published: int) -> None:
        """The slot of the channel moves, and events are published while it is in between."""
        slot = key_slot(self.channel)
        owner = self.cluster.owner(slot)
        others = [node for node in self.cluster.primaries() if node is not owner]
        self.cluster.move_slot(
            slot,
            others[number % len(others)],
            while_migrating=lambda: self.publish(published, is_large=False),
        )

    @rule()
    def fail_over(self) -> None:
        """A replica takes the place of the primary that has the log."""
        self.cluster.failover(self.cluster.node_of(self.channel))


class Connection(LossyConnection):
    """A connection that the machine lets a hub make, and on which events may be lost."""

    def __init__(self, client: redis.Redis, *, sharded: bool) -> None:
        machine = ClusterHistoryMachine.current
        assert machine.is_reachable.wait(PATIENCE)
        super().__init__(client, sharded=sharded)
        machine.subscriptions.append(self)


class Logs(NodeLogs):
    """The logs on a node, which a hub reads when the machine lets it."""

    def exchange(self, commands: Sequence[Command]) -> list[object]:
        """Return the answers to some commands."""
        assert ClusterHistoryMachine.current.is_reachable.wait(PATIENCE)
        return super().exchange(commands)


@pytest.fixture
def cluster(redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> RedisCluster:
    """Return a cluster for the model."""
    monkeypatch.setattr(f"{subscription.__name__}.PubSubConnection", Connection)
    monkeypatch.setattr(f"{log_reader.__name__}.NodeLogs", Logs)
    ClusterHistoryMachine.cluster = redis_cluster
    return redis_cluster


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("hasty", "cluster")
def test_the_guarantee_on_a_cluster() -> None:
    """Every logged event in order since `sse.open`, or a reset; no gap and nothing twice."""
    run(ClusterHistoryMachine, 60, 30)
