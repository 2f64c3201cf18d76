"""Where a Redis Cluster is, and clients for each of its nodes.

It can be called from any thread, and nothing connects here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from weakref import WeakKeyDictionary

import redis
from redis.cluster import NodesManager, RedisCluster

from flask_sse._redis.cluster.errors import LOGIN, LOST, NotConnectedError
from flask_sse._redis.options import own_options, portable_options
from flask_sse._redis.pool import CheckedPool
from flask_sse._redis.primary import RoleClient
from flask_sse._redis.url import Address

_CONNECTIONS: Final = 50
_UNBOUNDED: Final = 1 << 31
_PLACES: Final = ("host", "port", "db")
_ON_CONNECT: Final = "redis_connect_func"


@dataclass(frozen=True)
class _OnConnect:
    """Prepares a connection as a client for a cluster does, with a function of the application."""

    function: Callable[[Any], object]

    def __call__(self, connection: Any) -> None:
        connection.on_connect()
        self.function(connection)


class _NodePool(CheckedPool):
    """A pool whose errors say that nothing has been sent."""

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connection that works.

        :raises NotConnectedError: if no connection can be made.
        :raises redis.RedisError: if the node does not accept the login.
        """
        try:
            return super().get_connection(*args, **kwargs)
        except LOGIN:
            raise
        except LOST as error:
            raise NotConnectedError(str(error)) from error


def is_cluster_client(client: object) -> TypeGuard[RedisCluster]:
    """Whether a client of an application is one for a cluster, or passes everything on to one."""
    # RedisCluster.publish() would use PUBLISH, which streams on a cluster don't receive.
    return isinstance(getattr(client, "nodes_manager", None), NodesManager)


@dataclass(frozen=True, eq=False)
class ClusterNodes:
    """A Redis Cluster: where it is, and how to connect to each node."""

    start: Sequence[Address]
    """The nodes that are asked first. The cluster may have others."""
    options: Mapping[str, Any] = field(repr=False)
    """The options of the connections to any node: all but its host and port."""

    @classmethod
    def of(cls, client: RedisCluster) -> "ClusterNodes":
        """Return the nodes of an application's own client, as they were at the first call."""
        # The client may be a proxy, to which there are no weak references.
        manager: NodesManager = client.nodes_manager
        found = _seen.get(manager)
        if found is None:
            found = _seen[manager] = cls._of(client)
        return found

    @classmethod
    def _of(cls, client: RedisCluster) -> "ClusterNodes":
        untyped: Any = client
        nodes = untyped.get_nodes()
        pool = untyped.get_redis_connection(nodes[0]).connection_pool
        known = {
            **portable_options(pool.connection_kwargs),
            "connection_class": pool.connection_class,
        }
        options = {key: value for key, value in known.items() if key not in _PLACES}
        # This is a method of the client, which would never be released.
        options.pop(_ON_CONNECT, None)
        if untyped.user_on_connect_func is not None:
            options[_ON_CONNECT] = _OnConnect(untyped.user_on_connect_func)
        return cls(sorted(Address(node.host, node.port) for node in nodes), options)

    def with_timeout(self, seconds: float) -> "ClusterNodes":
        """Return the same nodes with another default timeout.

        :param seconds: How long to wait for a node, if the options do not say.
        """
        default = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        return ClusterNodes(self.start, {**default, **self.options})

    @property
    def connections(self) -> int:
        """How many connections may be used for publishing."""
        return self.options.get("max_connections") or _CONNECTIONS

    def client(self, address: Address) -> redis.StrictRedis:
        """Return a new client for one node."""
        pool = redis.ConnectionPool(**self._options_at(address))
        return redis.StrictRedis(connection_pool=pool)

    def publishing_client(self, address: Address) -> RoleClient:
        """Return a new client for one node that never repeats a command."""
        options = {**own_options(self._options_at(address)), "max_connections": _UNBOUNDED}
        return RoleClient(_NodePool(**options))

    def explain_client(self) -> str:
        """Return how an application makes a client for the cluster."""
        nodes = ", ".join(f"ClusterNode({host!r}, {port})" for host, port in self.start)
        return (
            f"a Redis Cluster has no redis.StrictRedis, so sse.redis can't return one; make a "
            f"client with redis.cluster.RedisCluster(startup_nodes=[{nodes}]), and with the login "
            f"and the TLS options that REDIS_URL has; sse.publish() needs no client"
        )

    def _options_at(self, address: Address) -> dict[str, Any]:
        return {**self.options, "host": address.host, "port": address.port}


_seen: Final[WeakKeyDictionary[NodesManager, ClusterNodes]] = WeakKeyDictionary()
