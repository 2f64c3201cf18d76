"""Publishes the events of one application, on its own connections.

It can be called from any thread. It blocks until Redis has answered, for a few seconds at most.
"""

import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, SupportsInt, TypeVar

import redis
from redis.client import Pipeline

from flask_sse import _gevent, _history
from flask_sse._broker import Broker
from flask_sse._history import Event, Position

_WAIT: Final = 5.0
_Result = TypeVar("_Result")


class Client(Protocol):
    """The method that publishing needs of a Redis client, which the application may provide."""

    def publish(self, channel: bytes, message: bytes, /) -> object:
        """Publish at once; return how many connections are subscribed to the channel."""


class Publisher:
    """Publishes to the Redis of a broker."""

    def __init__(self, broker: Broker) -> None:
        self._new_client = broker.new_publishing_client
        self._client = broker.new_publishing_client()
        self._connections = broker.connections
        # redis-py has no pool that both waits for a free connection and supports sentinels.
        self._free = threading.BoundedSemaphore(broker.connections)

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish a payload; return how many connections are subscribed to the channel.

        :raises redis.RedisError: if Redis can't be reached or does not answer.
        """
        return self._use(partial(publish, channel=channel, payload=payload))

    def append(self, channel: bytes, event: Event) -> int:
        """Publish an event and keep it; return how many connections are subscribed.

        :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
        """
        return self._use(partial(append, channel=channel, event=event))

    def position(self, channel: bytes) -> Position:
        """Return the newest position in the log of a channel.

        :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
        """
        return self._use(partial(_position, channel=channel))

    def _use(self, function: Callable[[redis.StrictRedis], _Result]) -> _Result:
        if _gevent.in_foreign_thread():
            client = self._new_client()
            try:
                return function(client)
            finally:
                client.connection_pool.disconnect()
        if not self._free.acquire(timeout=_WAIT):
            raise redis.ConnectionError(
                f"all {self._connections} connections for publishing have been in use for {_WAIT} "
                f"s; raise max_connections in the query of REDIS_URL"
            )
        try:
            return function(self._client)
        finally:
            self._free.release()


def publish(client: Client, channel: bytes, payload: bytes) -> int:
    """Publish through a client; return how many connections are subscribed to the channel.

    :raises TypeError: if it is not a client that publishes at once.
    :raises redis.RedisError: if Redis can't be reached or does not answer.
    """
    if not callable(getattr(client, "publish", None)):
        raise TypeError(
            f"redis must be a client such as redis.StrictRedis, not of the type "
            f"{type(client).__name__}"
        )
    try:
        number = client.publish(channel, payload)
    except UnicodeError as error:
        raise _unknown_host(error) from error
    if isinstance(number, int):
        return number
    if inspect.iscoroutine(number):
        number.close()
    # A MagicMock in an application's test can be converted to a number.
    if not isinstance(number, SupportsInt):
        raise TypeError(
            f"redis must be a client that publishes at once, such as redis.StrictRedis, and not "
            f"a pipeline or an asyncio client: publish() of {type(client).__name__} returned an "
            f"object of the type {type(number).__name__} instead of the number of subscribers"
        )
    return int(number)


def append(client: Client, channel: bytes, event: Event) -> int:
    """Publish an event through a client and keep it; return how many connections are subscribed.

    :raises TypeError: if it is not a client that runs scripts at once.
    :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
    """
    if not isinstance(client, redis.Redis) or isinstance(client, Pipeline):
        raise TypeError(
            f"with SSE_HISTORY, redis must be a redis.StrictRedis, and not of the type "
            f"{type(client).__name__}"
        )
    try:
        return _history.append(client, channel, event)
    except UnicodeError as error:
        raise _unknown_host(error) from error


def _position(client: redis.StrictRedis, channel: bytes) -> Position:
    try:
        return _history.newest_position(client, channel)
    except UnicodeError as error:
        raise _unknown_host(error) from error


def _unknown_host(error: UnicodeError) -> redis.ConnectionError:
    # Only the host name is encoded here; redis-py converts only an OSError.
    return redis.ConnectionError(f"the host of Redis can't be looked up; check REDIS_URL: {error}")
