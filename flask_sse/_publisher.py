"""Publishes the events of one application, on connections of its own.

May be called from any thread. It blocks until Redis has answered, for a few seconds at most.
"""

import inspect
import threading
from typing import Final, Protocol, SupportsInt

import redis

from flask_sse import _gevent
from flask_sse._broker import Broker

_WAIT: Final = 5.0


class Client(Protocol):
    """What publishing needs of a client of Redis, which may be the application's own."""

    def publish(self, channel: bytes, message: bytes, /) -> object:
        """Publish at once; return how many connections are subscribed to the channel."""


class Publisher:
    """Publishes to the Redis of a broker."""

    def __init__(self, broker: Broker) -> None:
        self._new_client = broker.new_publishing_client
        self._client = broker.new_publishing_client()
        self._connections = broker.connections
        # redis-py's pool that waits for a free connection can't be one for sentinels too.
        self._free = threading.BoundedSemaphore(broker.connections)

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish a payload; return how many connections are subscribed to the channel.

        :raises redis.RedisError: if Redis can't be reached or gives no answer.
        """
        if _gevent.in_foreign_thread():
            client = self._new_client()
            try:
                return publish(client, channel, payload)
            finally:
                client.connection_pool.disconnect()
        if not self._free.acquire(timeout=_WAIT):
            raise redis.ConnectionError(
                f"all of the {self._connections} connections for publishing have been in use for "
                f"{_WAIT} s; max_connections in the query of REDIS_URL allows more"
            )
        try:
            return publish(self._client, channel, payload)
        finally:
            self._free.release()


def publish(client: Client, channel: bytes, payload: bytes) -> int:
    """Publish through a client; return how many connections are subscribed to the channel.

    :raises TypeError: if it is no client that publishes at once.
    :raises redis.RedisError: if Redis can't be reached or gives no answer.
    """
    if not callable(getattr(client, "publish", None)):
        raise TypeError(
            f"redis must be a client such as redis.StrictRedis, not of the type "
            f"{type(client).__name__}"
        )
    try:
        number = client.publish(channel, payload)
    except UnicodeError as error:
        # All that is encoded here is the host's name; redis-py converts an OSError alone.
        raise redis.ConnectionError(
            f"the host of Redis cannot be looked up, see REDIS_URL: {error}"
        ) from error
    if isinstance(number, int):
        return number
    if inspect.iscoroutine(number):
        number.close()
    # A MagicMock, of an application's test, can be converted to a number.
    if not isinstance(number, SupportsInt):
        raise TypeError(
            f"redis must be a client that publishes at once, such as redis.StrictRedis, and not "
            f"a pipeline or an asyncio client: publish() of {type(client).__name__} returned an "
            f"object of the type {type(number).__name__} instead of the number of subscribers"
        )
    return int(number)
