"""Names of channels for a Redis Cluster, by the nodes that have them."""

import itertools

from redis.crc import key_slot

from tests.support.cluster_node import ClusterNode
from tests.support.cluster_state import owned_slots
from tests.support.redis_cluster import RedisCluster

ODD_NAMES = (
    "",
    "{",
    "}",
    "{}",
    "x}",
    "{}x",
    "a{b}c",
    "{{a}}",
    "a b\t",
    "ünï☃\U0001f980",
    "x" * 9000,
)
"""Names that are hard to place: a node hashes only the part between the first braces."""


def channels_by_node(
    cluster: RedisCluster, prefix: str, each: int = 1
) -> dict[ClusterNode, list[str]]:
    """Return the names of some channels of each primary, which begin with *prefix*.

    :param each: How many channels of each node.
    """
    slots = {node: owned for node, owned in owned_slots(cluster.nodes).items() if owned}
    found: dict[ClusterNode, list[str]] = {node: [] for node in slots}
    for number in itertools.count():
        name = f"{prefix}-{number}"
        slot = key_slot(name.encode())
        [names] = [found[node] for node, owned in slots.items() if slot in owned]
        if len(names) < each:
            names.append(name)
        elif all(len(names) == each for names in found.values()):
            return found
    raise AssertionError("there are always more numbers")


def channel_of_each(cluster: RedisCluster, prefix: str) -> list[str]:
    """Return the name of one channel of each primary."""
    return [name for [name] in channels_by_node(cluster, prefix).values()]
