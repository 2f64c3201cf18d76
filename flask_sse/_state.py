"""The state of one application in this process: its settings, its Redis, its hubs.

It is kept in ``app.extensions``, so that applications are independent. It can be used from
any thread.
"""

import os
import threading
from collections.abc import Generator, Hashable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, Self
from weakref import WeakSet

import redis
from flask import Flask
from flask.json.provider import JSONProvider

from flask_sse import _gevent, _history, _publisher
from flask_sse._broker import Broker, find_broker
from flask_sse._history import Event, Position
from flask_sse._hub import Hub
from flask_sse._logs import History
from flask_sse._notices import Notices
from flask_sse._publisher import Client, Publisher
from flask_sse._pubsub import PubSubConnection, open_connection
from flask_sse._response import Streams
from flask_sse._settings import IN_MEMORY, URL_KEYS, Settings

_KEY: Final = "flask_sse"
_REST_WITHIN: Final = 5.0
_WHERE: Final = ("host", "port", "path")
_WHO: Final = ("username", "password", "credential_provider", "redis_connect_func")


class _Redis(NamedTuple):
    """The Redis that the application is configured to use."""

    broker: Broker
    client: redis.StrictRedis
    publisher: Publisher


class State:
    """The state of an application in this process."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self.notices = Notices(app)
        self._lock = threading.Lock()
        self._settings: Settings | None = None
        self._redis: _Redis | None = None
        self._clients_of_threads: WeakSet[redis.Redis] = WeakSet()
        self._streams: Streams | None = None
        self._hubs: dict[Hashable, Hub] = {}

    @classmethod
    def of(cls, app: Flask) -> Self:
        """Return the state of *app* in this process.

        After a fork, there is a new state: threads, connections and locks of the parent
        process can't be used here.
        """
        states: dict[int, Self] = app.extensions.setdefault(_KEY, {})
        pid = os.getpid()
        if pid not in states:
            # Not `current_app`, a proxy that may refer to another application later.
            states.setdefault(pid, cls(app.app_context().app))
            for other in states.keys() - {pid}:
                states.pop(other, None)
        return states[pid]

    @classmethod
    @contextmanager
    def in_memory(cls, app: Flask) -> Generator[None, None, None]:
        """Give *app* a separate state with the embedded Redis, until the block ends."""
        states = app.extensions.pop(_KEY, None)
        try:
            with _changed(app.config, URL_KEYS[0], IN_MEMORY):
                yield
        finally:
            cls.of(app).rest(_REST_WITHIN)
            app.extensions.pop(_KEY, None)
            if states is not None:
                app.extensions[_KEY] = states

    @property
    def provider(self) -> JSONProvider:
        """The application's JSON provider."""
        return self._app.json

    @property
    def settings(self) -> Settings:
        """The application's settings, which are kept after their first use.

        As long as the Redis URL is missing or wrong, it is read again.

        :raises TypeError: if a setting has the wrong type.
        :raises ValueError: if a setting is out of range.
        """
        kept = self._settings
        if kept is not None and self._redis is not None:
            return kept
        found = Settings.from_config(self._app.config)
        return found if kept is None else replace(kept, redis_url=found.redis_url)

    @property
    def streams(self) -> Streams:
        """The state that the application's streams share."""
        with self._lock:
            if self._streams is None:
                self._settings = self.settings
                self._streams = Streams(self._settings)
            return self._streams

    def client(self) -> redis.StrictRedis:
        """Return the application's client.

        :raises KeyError: if no URL is set.
        :raises ValueError: if the URL can't be parsed.
        """
        own = self._redis or self._find_redis()
        if not _gevent.in_foreign_thread():
            return own.client
        client = own.broker.new_client()
        self._clients_of_threads.add(client)
        return client

    def publish(self, client: Client, channel: bytes, payload: bytes) -> int:
        """Publish through *client*, or through the publisher if it is the application's client.

        :return: how many connections are subscribed to the channel.
        :raises TypeError: if it is not a client that publishes at once.
        :raises redis.RedisError: if Redis can't be reached or does not answer.
        """
        own = self._redis
        if own is not None and (client is own.client or self._is_of_thread(client)):
            return own.publisher.publish(channel, payload)
        return _publisher.publish(client, channel, payload)

    def append(self, client: Client, channel: bytes, event: Event) -> int:
        """Publish an event like :meth:`publish`, and keep it.

        :return: how many connections are subscribed to the channel.
        :raises TypeError: if it is not a client that runs scripts at once.
        :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
        """
        own = self._redis
        if own is not None and (client is own.client or self._is_of_thread(client)):
            return own.publisher.append(channel, event)
        return _publisher.append(client, channel, event)

    def position(self, channel: bytes) -> Position:
        """Return the newest position in the log of a channel.

        :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
        """
        return (self._redis or self._find_redis()).publisher.position(channel)

    def hub(self, client: redis.Redis) -> Hub:
        """Return the hub for the Redis that *client* connects to.

        :raises TypeError: if the client does not say which Redis that is.
        """
        pool = _pool_of(client)
        # A log is in one database; an event that is only published reaches all databases.
        database = pool.connection_kwargs.get("db") or 0 if self.settings.history else None
        key = (_destination(pool), database)
        hub = self._hubs.get(key)
        if hub is None:
            self._settings = self.settings
            # The client may be a proxy, which does not work outside the request.
            own = redis.StrictRedis(connection_pool=pool)
            connect = partial(PubSubConnection, own)
            history = None
            if self._settings.history:
                history = History(
                    self._settings.retention,
                    partial(open_connection, own),
                    _history.database_of(own),
                )
            # If two threads do this at the same time, one wins; an unused hub costs nothing.
            hub = self._hubs.setdefault(
                key,
                Hub(
                    connect,
                    self.provider,
                    keepalive=self._settings.keepalive,
                    history=history,
                    notices=self.notices,
                ),
            )
        return hub

    def wake_hubs(self) -> None:
        """Make the hubs look for events that they would otherwise find only by polling."""
        if self._hubs and self.settings.in_memory:
            for hub in [*self._hubs.values()]:
                hub.wake()

    def rest(self, seconds: float) -> None:
        """End the threads that have nothing to do, and wait until they have ended.

        :param seconds: How long to wait for each at most.
        """
        for hub in [*self._hubs.values()]:
            hub.rest(seconds)
        self.notices.finish(seconds)

    def _find_redis(self) -> _Redis:
        with self._lock:
            if self._redis is None:
                settings = self.settings
                broker = find_broker(settings)
                self._settings = settings
                self._redis = _Redis(broker, broker.new_client(), Publisher(broker))
            return self._redis

    def _is_of_thread(self, client: Client) -> bool:
        return isinstance(client, redis.Redis) and client in self._clients_of_threads


@contextmanager
def _changed(config: dict[str, Any], key: str, value: str) -> Generator[None, None, None]:
    """Give a setting another value until the block ends."""
    before = {key: config[key]} if key in config else {}
    config[key] = value
    try:
        yield
    finally:
        # The block may have removed it.
        config.pop(key, None)
        config.update(before)


def _pool_of(client: redis.Redis) -> redis.ConnectionPool:
    """Return the pool of a client; an application may provide any kind of object as client."""
    pool: object = getattr(client, "connection_pool", None)
    if not isinstance(pool, redis.ConnectionPool):
        raise TypeError(
            f"for messages() and the stream, redis must be a redis.StrictRedis, or have the "
            f"connection_pool of one, not be of the type {type(client).__name__}; in a Redis "
            f"Cluster, the client of any one node receives all events"
        )
    return pool


def _destination(pool: redis.ConnectionPool) -> Hashable:
    """Return a key for the server and the user of a pool; pools with the same key share a hub."""
    known = pool.connection_kwargs
    server: Hashable = known.get("server")
    if server is not None:
        # fakeredis invents a host for each client.
        return server
    keys = [*_WHERE, *_WHO, *sorted(key for key in known if key.startswith("ssl"))]
    where = tuple((key, _hashable(known[key])) for key in keys if known.get(key) is not None)
    sentinels: list[redis.Redis] = getattr(getattr(pool, "sentinel_manager", None), "sentinels", [])
    return (
        pool.connection_class,
        where,
        getattr(pool, "service_name", None),
        getattr(pool, "is_master", None),
        frozenset(_destination(sentinel.connection_pool) for sentinel in sentinels),
    )


def _hashable(value: object) -> Hashable:
    return value if isinstance(value, Hashable) else repr(value)
