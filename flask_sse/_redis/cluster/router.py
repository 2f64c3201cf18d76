"""Finds the node of a Redis Cluster that has a channel, and keeps a client for each node.

It can be called from any thread. Only `Router.address_of` blocks, while it looks at the cluster.

redis-py's ``RedisCluster`` does the same, but asks several nodes again before it raises an error.
If a channel's name is not UTF-8, it follows MOVED to a wrong node, and gives up.
"""

import threading
from typing import Any, Final

import redis
from redis.exceptions import ClusterDownError

from flask_sse._redis.cluster.errors import Redirection, explain_connecting
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.topology import SlotMap, look
from flask_sse._redis.primary import RoleClient
from flask_sse._redis.pubsub import LOST
from flask_sse._redis.slots import slot
from flask_sse._redis.url import Address
from flask_sse._system.clock import monotonic

_WAIT: Final = 5.0
"""Seconds to wait for another thread that looks at the cluster."""
_LOOK_EVERY: Final = 0.2
"""Seconds between two looks."""


class Router:
    """Finds the node for a channel.

    The cluster is looked at when a channel is first needed, and again after :meth:`expire`. If
    several threads need that, one looks and the others wait.
    """

    def __init__(self, nodes: ClusterNodes) -> None:
        self._nodes = nodes
        self._map: SlotMap | None = None
        self._is_expired = False
        self._failure: redis.ConnectionError | None = None
        self._looks = 0
        self._next_look = 0.0
        # It is reentrant: while it is held, the garbage collector may close a generator of the
        # application that publishes something at its end.
        self._lock = threading.RLock()
        self._moved: dict[int, Address] = {}
        self._doubted: set[Address] = set()
        self._clients: dict[Address, RoleClient] = {}

    def address_of(self, channel: bytes) -> Address:
        """Return the node that has a channel.

        :raises redis.RedisError: if no node has it, or no node answers.
        """
        found = self._map
        if found is None or self._is_expired:
            found = self._look()
        number = slot(channel)
        address = self._moved.get(number) or found.owner(number)
        if address is None:
            raise ClusterDownError(
                f"no node of the Redis Cluster has slot {number} of this channel"
            )
        return address

    def client_at(self, address: Address) -> RoleClient:
        """Return the client for a node."""
        client = self._clients.get(address)
        if client is None:
            client = self._clients.setdefault(address, self._nodes.publishing_client(address))
        return client

    def note(self, redirection: Redirection) -> None:
        """Note that a slot has moved to another node; this needs no look at the cluster."""
        if not redirection.is_ask:
            self._moved[redirection.slot] = redirection.address

    def expire(self, failed: Address | None = None) -> None:
        """Look at the cluster again before the next channel.

        :param failed: A node that does not answer.
        """
        self._is_expired = True
        if failed is not None:
            self._doubted.add(failed)

    def disconnect(self) -> None:
        """Close the connections that are not in use."""
        for address in [*self._clients]:
            self._forget(address)

    def _look(self) -> SlotMap:
        looks = self._looks
        if not self._lock.acquire(timeout=_WAIT):
            if self._map is not None:
                return self._map
            raise redis.ConnectionError(
                f"another thread has been looking for the nodes of the Redis Cluster for {_WAIT} "
                f"s; check REDIS_URL"
            )
        try:
            if looks == self._looks:
                self._look_now()
            if self._map is None:
                # The thread that has looked raises an error of the same type.
                failure = self._failure or redis.ConnectionError("the Redis Cluster was not found")
                raise type(failure)(str(failure))
            return self._map
        finally:
            self._lock.release()

    def _look_now(self) -> None:
        known = self._map
        if known is not None and monotonic() < self._next_look:
            return
        self._is_expired = False
        try:
            self._map = self._find()
            self._moved = {}
        except redis.ConnectionError as error:
            self._failure = error
            self._is_expired = True
            # Perhaps the node that is needed is still there; otherwise its own error is better.
            if known is None:
                raise
        finally:
            self._looks += 1
            self._next_look = monotonic() + _LOOK_EVERY
        if self._map is not None:
            for address in self._clients.keys() - self._map.primaries:
                self._forget(address)

    def _find(self) -> SlotMap:
        known = () if self._map is None else self._map.primaries
        doubted, self._doubted = self._doubted, set()
        try:
            return look(self._nodes, known, doubted=doubted)
        except LOST as error:
            raise explain_connecting(error, ", ".join(map(str, self._nodes.start))) from error

    def _forget(self, address: Address) -> None:
        client = self._clients.pop(address, None)
        if client is not None:
            pool: Any = client.connection_pool
            pool.renew()
