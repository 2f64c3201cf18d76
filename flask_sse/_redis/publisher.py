"""Publishes the events of one application: on its own connections, or through a given client.

It can be called from any thread. It blocks until Redis has answered, for a few seconds at most.
"""

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, SupportsInt, TypeVar
from weakref import WeakSet

import redis
from redis.client import Pipeline

from flask_sse._log.position import Position
from flask_sse._redis import log_commands, scripts
from flask_sse._redis.clients import Broker
from flask_sse._redis.cluster.errors import explain_cluster
from flask_sse._redis.log_commands import NewEntry
from flask_sse._redis.pool import ConnectionLimit
from flask_sse._redis.primary import PublishingClient
from flask_sse._redis.scripts import Call, Scripts
from flask_sse._system import greenlets

_Result = TypeVar("_Result")


class Publisher(Scripts, Protocol):
    """Publishes to one Redis. There is one class for each kind of client."""

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish a payload; return how many connections are subscribed to the channel.

        :raises TypeError: if a given client does not publish at once.
        :raises redis.RedisError: if Redis can't be reached or does not answer.
        """
        ...

    def append(self, channel: bytes, event: NewEntry) -> int:
        """Publish an event and keep it; return how many connections are subscribed.

        :raises TypeError: if a given client does not run scripts at once.
        :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
        """
        ...

    def position(self, channel: bytes) -> Position:
        """Return the newest position in the log of a channel; it raises what `append` raises."""
        ...


class ClientPublisher:
    """Publishes through a client of the application, which may be any kind of object."""

    __slots__ = ("_client",)

    def __init__(self, client: object) -> None:
        self._client = client

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish a payload; return how many connections are subscribed to the channel."""
        name = type(self._client).__name__
        if not callable(getattr(self._client, "publish", None)):
            raise TypeError(
                f"redis must be a client such as redis.StrictRedis, not of the type {name}"
            )
        client: Any = self._client
        number: object = _run(lambda: client.publish(channel, payload))
        if isinstance(number, int):
            return number
        if inspect.iscoroutine(number):
            number.close()
        # A MagicMock in an application's test can be converted to a number.
        if not isinstance(number, SupportsInt):
            raise TypeError(
                f"redis must be a client that publishes at once, such as redis.StrictRedis, and "
                f"not a pipeline or an asyncio client: publish() of {name} returned an object of "
                f"the type {type(number).__name__} instead of the number of subscribers"
            )
        return int(number)

    def append(self, channel: bytes, event: NewEntry) -> int:
        """Publish an event and keep it; return how many connections are subscribed."""
        client = self._require_scripts()
        return _run(lambda: log_commands.append(client, channel, event))

    def position(self, channel: bytes) -> Position:
        """Return the newest position in the log of a channel."""
        client = self._require_scripts()
        return _run(lambda: log_commands.newest_position(client, channel))

    def run(self, call: Call) -> object:
        """Run a script about a channel, and return its answer."""
        client = self._require_scripts()
        return _run(lambda: scripts.run_on_primary(client, call))

    def run_all(self, calls: Sequence[Call]) -> Sequence[object]:
        """Run a script for several channels; return the answers, which may be errors."""
        client = self._require_scripts()
        return _run(lambda: scripts.run_all(client, calls))

    def _require_scripts(self) -> redis.Redis:
        client = self._client
        if not isinstance(client, redis.Redis) or isinstance(client, Pipeline):
            raise TypeError(
                f"with SSE_HISTORY or SSE_PRESENCE, redis must be a redis.StrictRedis, or in a "
                f"cluster a redis.cluster.RedisCluster, and not of the type {type(client).__name__}"
            )
        return client


class FailoverObserver(Protocol):
    """Has subscriptions at the Redis of a publisher."""

    def follow(self) -> None:
        """Note that the publisher has found another primary. It may block for a second."""


class PoolPublisher:
    """Publishes on connections of its own to the Redis of a broker."""

    def __init__(self, broker: Broker) -> None:
        self._new_client = broker.new_publishing_client
        self._client = broker.new_publishing_client()
        self._limit = ConnectionLimit(broker.connections)
        self._followed = 0
        # A set must not grow while another thread iterates over it.
        self._lock = threading.RLock()
        self._observers: WeakSet[FailoverObserver] = WeakSet()

    def disconnect(self) -> None:
        """Close the connections."""
        self._client.connection_pool.disconnect()

    def add_observer(self, observer: FailoverObserver) -> None:
        """Tell *observer* each time that another primary has been found."""
        with self._lock:
            self._observers.add(observer)

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish a payload; return how many connections are subscribed to the channel."""
        return self._use(lambda client: _publish(client, channel, payload))

    def append(self, channel: bytes, event: NewEntry) -> int:
        """Publish an event and keep it; return how many connections are subscribed."""
        return self._use(lambda client: log_commands.append(client, channel, event))

    def position(self, channel: bytes) -> Position:
        """Return the newest position in the log of a channel."""
        return self._use(lambda client: log_commands.newest_position(client, channel))

    def run(self, call: Call) -> object:
        """Run a script about a channel, and return its answer."""
        return self._use(lambda client: scripts.run_on_primary(client, call))

    def run_all(self, calls: Sequence[Call]) -> Sequence[object]:
        """Run a script for several channels; return the answers, which may be errors."""
        return self._use(lambda client: scripts.run_all(client, calls))

    def _use(self, command: Callable[[redis.StrictRedis], _Result]) -> _Result:
        if greenlets.in_foreign_thread():
            pool = self._new_client().connection_pool
            try:
                # On a new connection, there is no need to ask for the role.
                client = redis.StrictRedis(connection_pool=pool)
                return _run(lambda: command(client))
            finally:
                pool.disconnect()
        with self._limit:
            result = _run(lambda: command(self._client))
        self._note_failover()
        return result

    def _note_failover(self) -> None:
        """Tell the observers if the client has found another primary since they were last told."""
        client = self._client
        if (
            isinstance(client, PublishingClient)
            and client.moves != self._followed
            and not client.is_on_replica
        ):
            self._followed = client.moves
            with self._lock:
                observers = [*self._observers]
            for observer in observers:
                observer.follow()


def _publish(client: Any, channel: bytes, payload: bytes) -> int:
    # The types of redis-py's own method have gaps.
    number: int = client.publish(channel, payload)
    return number


def _run(command: Callable[[], _Result]) -> _Result:
    try:
        return command()
    except redis.ResponseError as error:
        of_cluster = explain_cluster(error)
        if of_cluster is None:
            raise
        raise of_cluster from error
    except UnicodeError as error:
        # Only the host name is encoded here; redis-py converts only an OSError.
        raise redis.ConnectionError(
            f"the host of Redis can't be looked up; check REDIS_URL: {error}"
        ) from error
