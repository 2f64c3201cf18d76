"""What a hub needs to know about its Redis, or its cluster.

It can be called from any thread, and nothing connects here.
"""

from collections.abc import Callable, Hashable
from functools import partial
from typing import NamedTuple

import redis

from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.subscription import ClusterSubscription
from flask_sse._redis.connections import destination, destination_of_cluster
from flask_sse._redis.log_commands import database_of
from flask_sse._redis.log_source import LogSource, Open, ServerLogs
from flask_sse._redis.server_subscription import Connect, ServerSubscription
from flask_sse._redis.subscription import Subscribe


class Upstream(NamedTuple):
    """A Redis or a cluster, from which events come."""

    key: Hashable
    """Says which one it is, and for which user."""
    subscribe: Subscribe
    """Makes the subscriptions of a hub."""
    logs: Callable[[], LogSource | ClusterNodes]
    """Says where the logs are read."""
    database: int
    """The number of the database that has the logs."""


def of_server(client: redis.Redis, connect: Connect, open_: Open) -> Upstream:
    """Return one Redis.

    :param connect: Makes a connection for subscriptions.
    :param open_: Makes a connection for reading logs.
    """
    return Upstream(
        destination(client.connection_pool),
        partial(ServerSubscription, connect),
        partial(ServerLogs, open_),
        database_of(client),
    )


def of_cluster(nodes: ClusterNodes) -> Upstream:
    """Return a cluster."""
    return Upstream(
        destination_of_cluster(nodes),
        partial(ClusterSubscription, nodes),
        lambda: nodes,
        0,
    )
