"""The same model of several channels on a Redis Cluster, where they are on different nodes."""

from typing import ClassVar

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import rule
from redis.crc import key_slot

from flask_sse._redis.cluster import subscription
from tests.behavior.test_channels_model import (
    LATEST,
    LOGGED,
    Channel,
    ChannelsMachine,
    LossyConnection,
    hasty,
    run,
)
from tests.support.redis_cluster import RedisCluster

__all__ = ["hasty"]


class ClusterChannelsMachine(ChannelsMachine):
    """Two processes, a cluster that loses and forgets, and clients that come and go."""

    cluster: ClassVar[RedisCluster]

    def admin_of(self, channel: Channel) -> redis.Redis:
        """Return a client of the node that has the log of a channel."""
        return self.cluster.node_of(channel.name.encode()).admin

    def flush(self) -> None:
        """Delete all logs."""
        for node in self.cluster.primaries():
            node.admin.flushall()

    def kill_subscriptions(self) -> None:
        """Close the connections of all subscriptions."""
        for node in self.cluster.nodes:
            node.kill_pubsub()

    @rule(index=st.integers(0, LOGGED + LATEST - 1), number=st.integers(0, 1))
    def move_slot(self, index: int, number: int) -> None:
        """A channel moves, and an event is published while it is in between."""
        self.is_lossy = True
        name = self.names[index]
        slot = key_slot(name.encode())
        owner = self.cluster.owner(slot)
        others = [node for node in self.cluster.primaries() if node is not owner]
        self.cluster.move_slot(
            slot, others[number % len(others)], while_migrating=lambda: self.publish_to(name)
        )

    @rule(index=st.integers(0, LOGGED + LATEST - 1))
    def fail_over(self, index: int) -> None:
        """A replica takes the place of the primary that has a log."""
        self.is_lossy = True
        self.cluster.failover(self.cluster.node_of(self.names[index].encode()))


@pytest.fixture
def cluster(redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> RedisCluster:
    """Return a cluster for the model."""
    monkeypatch.setattr(f"{subscription.__name__}.PubSubConnection", LossyConnection)
    ClusterChannelsMachine.cluster = redis_cluster
    ClusterChannelsMachine.url = redis_cluster.url
    return redis_cluster


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("cluster")
def test_the_guarantee_on_a_cluster() -> None:
    """In each channel, every event once and in order, or a reset that names the channel."""
    run(ClusterChannelsMachine, 60, 30)
