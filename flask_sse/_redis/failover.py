"""The connections that listen to an application's own Redis, and their move to another primary.

It can be called from any thread. Only `follow` blocks.
"""

import threading
import time
from typing import Final
from weakref import WeakSet

import redis

from flask_sse._redis.pubsub import PubSubConnection, RedisConnection, interrupt, open_connection
from flask_sse._system.clock import monotonic

_FOLLOW_WITHIN: Final = 1.0
_LOOK_EVERY: Final = 0.005


class Listening:
    """The connections on which a process gets events and reads logs."""

    def __init__(self) -> None:
        # It is reentrant: while it is held, the garbage collector may close a generator of the
        # application that publishes something at its end.
        self._lock = threading.RLock()
        self._subscriptions: WeakSet[PubSubConnection] = WeakSet()
        self._log_connections: WeakSet[RedisConnection] = WeakSet()

    def subscribe(self, client: redis.Redis) -> PubSubConnection:
        """Return a new connection for subscriptions."""
        connection = PubSubConnection(client)
        with self._lock:
            self._subscriptions.add(connection)
        return connection

    def open(self, client: redis.Redis) -> RedisConnection:
        """Return a new connection for reading logs."""
        connection = open_connection(client)
        with self._lock:
            self._log_connections.add(connection)
        return connection

    def follow(self) -> None:
        """Subscribe at the primary that the publisher has found, and wait a moment for it.

        Otherwise the streams of this process would miss what is published until the old
        primary has become its replica.
        """
        with self._lock:
            left = {*self._subscriptions}
            log_connections = [*self._log_connections]
        for connection in left:
            connection.interrupt()
        for log_connection in log_connections:
            interrupt(log_connection)
        deadline = monotonic() + _FOLLOW_WITHIN
        while left and monotonic() < deadline:
            time.sleep(_LOOK_EVERY)
            with self._lock:
                now = {*self._subscriptions}
            if sum(connection.is_complete for connection in now - left) >= len(left):
                return
