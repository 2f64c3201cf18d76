"""The connections of this process to a Redis, and which Redis a client connects to.

It can be called from any thread, and nothing connects here.
"""

import os
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

import redis

from flask_sse._redis.clients import Broker, find_broker
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.publisher import ClusterPublisher
from flask_sse._redis.publisher import PoolPublisher
from flask_sse._settings import Settings

_WHERE: Final = ("host", "port", "path")
_WHO: Final = ("username", "password", "credential_provider", "redis_connect_func")


@dataclass(frozen=True)
class Connections:
    """The connections to a Redis; applications in one process that have the same URL share them."""

    source: redis.StrictRedis | ClusterNodes
    """The application's client, or its cluster, which has no such client."""
    new_source: Callable[[], redis.StrictRedis | ClusterNodes]
    """Makes one for a thread that can't share connections."""
    publisher: PoolPublisher | ClusterPublisher

    @classmethod
    def of(cls, settings: Settings) -> "Connections":
        """Return the connections that the settings name.

        :raises KeyError: if no URL is set.
        :raises ValueError: if the URL can't be parsed.
        """
        key = (os.getpid(), settings.redis_url)
        found = _shared.get(key)
        if found is None:
            found = cls._to(find_broker(settings))
            if not settings.in_memory:
                # If two threads do this at the same time, both work, and the later is shared.
                _shared[key] = found
                closing = [found.publisher.disconnect]
                if isinstance(found.source, redis.StrictRedis):
                    closing.append(found.source.connection_pool.disconnect)
                weakref.finalize(found, _disconnect, os.getpid(), closing).atexit = False
        return found

    @classmethod
    def _to(cls, broker: Broker | ClusterNodes) -> "Connections":
        if isinstance(broker, ClusterNodes):
            return cls(broker, lambda: broker, ClusterPublisher(broker))
        return cls(broker.new_client(), broker.new_client, PoolPublisher(broker))


def _disconnect(pid: int, closing: Iterable[Callable[[], None]]) -> None:
    """Close connections before the garbage collector finds their sockets open."""
    if pid == os.getpid():
        for close in closing:
            close()


# An application that is made for each task may stay in memory until the garbage collector
# finds it. 300 of them had 29 connections at the same time.
_shared: Final[WeakValueDictionary[tuple[int, str | None], Connections]] = WeakValueDictionary()


def pool_of(client: object) -> redis.ConnectionPool:
    """Return the pool of a client; an application may provide any kind of object as client.

    :raises TypeError: if it has none.
    """
    pool: object = getattr(client, "connection_pool", None)
    if not isinstance(pool, redis.ConnectionPool):
        kind = type(client)
        raise TypeError(
            f"for messages() and the stream, redis must be a redis.StrictRedis, or have the "
            f"connection_pool of one, or be a redis.cluster.RedisCluster, not be of the type "
            f"{kind.__module__}.{kind.__qualname__}"
        )
    return pool


def destination(pool: redis.ConnectionPool) -> Hashable:
    """Return a key for the server and the user of a pool; pools with the same key share a hub."""
    known = pool.connection_kwargs
    server: Hashable = known.get("server")
    if server is not None:
        # fakeredis invents a host for each client.
        return server
    where = _identity(known)
    sentinels: list[redis.Redis] = getattr(getattr(pool, "sentinel_manager", None), "sentinels", [])
    return (
        pool.connection_class,
        where,
        getattr(pool, "service_name", None),
        getattr(pool, "is_master", None),
        frozenset(destination(sentinel.connection_pool) for sentinel in sentinels),
    )


def destination_of_cluster(nodes: ClusterNodes) -> Hashable:
    """Return a key for the cluster and the user; nodes with the same key share a hub."""
    return frozenset(nodes.start), nodes.options.get("connection_class"), _identity(nodes.options)


def _identity(known: Mapping[str, Any]) -> tuple[tuple[str, Hashable], ...]:
    """Return the options that say where Redis is and how to log in."""
    keys = [*_WHERE, *_WHO, *sorted(key for key in known if key.startswith("ssl"))]
    return tuple((key, _hashable(known[key])) for key in keys if known.get(key) is not None)


def _hashable(value: object) -> Hashable:
    return value if isinstance(value, Hashable) else repr(value)
