"""Very many channels of a Redis Cluster, whose primaries are replaced."""

import resource
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.cluster_channels import channels_by_node
from tests.support.cluster_node import ClusterNode
from tests.support.gathering import gather
from tests.support.redis_cluster import RedisCluster
from tests.support.waiting import wait_until

NUMBER: Final = 10_000
AT_ONCE: Final = 500
"""How many clients connect at the same time, so that the server's backlog is not full."""

Replace = Callable[[RedisCluster, ClusterNode], ClusterNode]


def fail_over(cluster: RedisCluster, primary: ClusterNode) -> ClusterNode:
    """Let a replica take the place of a primary, without loss."""
    return cluster.failover(primary)


def kill(cluster: RedisCluster, primary: ClusterNode) -> ClusterNode:
    """Kill a primary, and wait for the one that replaces it."""
    slot = primary.own_row().slots[0].start
    cluster.kill(primary)
    return cluster.wait_replaced(primary, slot)


def subscriptions(node: ClusterNode) -> int:
    """Return how many channels of a node have subscribers."""
    answer: Any = node.admin.execute_command("PUBSUB", "SHARDCHANNELS")
    return len(answer)


def publish_all(
    cluster: RedisCluster, channels: Mapping[ClusterNode, list[str]], text: str
) -> None:
    """Publish an event on each channel, at the node that has it now."""
    for names in channels.values():
        pipeline = cluster.node_of(names[0].encode()).admin.pipeline(transaction=False)
        for name in names:
            pipeline.execute_command("SPUBLISH", name, f'{{"data": "{text} {name}"}}')
        assert set(pipeline.execute()) == {1}


@pytest.fixture
def many_descriptors() -> None:
    """Allow this process and its children as many descriptors as the system does."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@pytest.mark.long
@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("replace", [fail_over, kill])
def test_many_channels_of_a_primary_that_is_replaced(
    redis_cluster: RedisCluster, replace: Replace, channel: str, tmp_path: Path
) -> None:
    """Each of 10,000 streams stays open, and gets what is published before and afterwards."""
    primaries = redis_cluster.primaries()
    channels = channels_by_node(redis_cluster, channel, NUMBER // len(primaries))
    names = [name for names in channels.values() for name in names]
    settings = {"REDIS_URL": redis_cluster.url}
    with servers.gunicorn(tmp_path, settings=settings) as site, ExitStack() as stack:
        clients: list[StreamClient] = []
        for start in range(0, len(names), AT_ONCE):
            some = [
                stack.enter_context(StreamClient(site.port, name))
                for name in names[start : start + AT_ONCE]
            ]
            gather(some, lambda client: client.parser.comments > 0)
            clients += some

        def are_subscribed(node: ClusterNode) -> bool:
            return subscriptions(node) == len(names) // 3

        publish_all(redis_cluster, channels, "before")
        gather(clients, lambda client: len(client.events) >= 1)
        for primary in primaries[:2]:
            new = replace(redis_cluster, primary)
            wait_until(partial(are_subscribed, new), "subscribed again")
        publish_all(redis_cluster, channels, "after")
        gather(clients, lambda client: len(client.events) >= 2)
        for name, client in zip(names, clients, strict=True):
            assert [event.data for event in client.events] == [f"before {name}", f"after {name}"]
        assert "Traceback" not in site.log()
