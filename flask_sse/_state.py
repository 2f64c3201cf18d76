"""The state of one application in this process: its settings, its Redis, its hubs.

It is kept in ``app.extensions``, so that applications are independent. It can be used from
any thread.
"""

import logging
import os
import threading
from collections.abc import Generator, Hashable
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, Self
from weakref import WeakSet

import redis
from flask import Flask, current_app, has_request_context, request
from flask.json.provider import JSONProvider

from flask_sse._callbacks.receivers import Notices
from flask_sse._event.revocation import check_client
from flask_sse._hub.hub import Hub
from flask_sse._hub.log_queries import History
from flask_sse._presence.announcer import Announcer
from flask_sse._presence.roster import Roster
from flask_sse._presence.seat import Seat
from flask_sse._redis.cluster.nodes import ClusterNodes, is_cluster_client
from flask_sse._redis.cluster.publisher import ClusterClientPublisher
from flask_sse._redis.connections import Connections, pool_of
from flask_sse._redis.failover import Listening
from flask_sse._redis.publisher import ClientPublisher, PoolPublisher, Publisher
from flask_sse._redis.pubsub import PubSubConnection, RedisConnection, open_connection
from flask_sse._redis.upstream import Upstream, of_cluster, of_server
from flask_sse._settings import IN_MEMORY, URL_KEYS, Settings, unknown_keys
from flask_sse._streaming import worker
from flask_sse._streaming.event_stream import Streams
from flask_sse._streaming.siblings import refuse_several_processes
from flask_sse._system import greenlets

_log: Final = logging.getLogger("flask_sse")

_KEY: Final = "flask_sse"
_REST_WITHIN: Final = 5.0


class _Redis(NamedTuple):
    """The Redis that the application is configured to use."""

    connections: Connections
    source: redis.StrictRedis | ClusterNodes


class State:
    """The state of an application in this process."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self.notices = Notices(app)
        # It is reentrant: while it is held, the garbage collector may close a generator of the
        # application that publishes something at its end.
        self._lock = threading.RLock()
        self._settings: Settings | None = None
        self._redis: _Redis | None = None
        self._clients_of_threads: WeakSet[redis.Redis] = WeakSet()
        self._streams: Streams | None = None
        self._hubs: dict[Hashable, Hub] = {}
        self._rosters: dict[Hashable, Roster] = {}
        self._listening = Listening()
        self._has_looked_for_siblings = False
        self._has_refused_name = False

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
    def current(cls) -> Self:
        """Return the state of the current application.

        :raises RuntimeError: if it uses ``memory://`` and this server has several processes.
        """
        state = cls.of(current_app)
        if state.settings.in_memory and has_request_context():
            state._has_looked_for_siblings = refuse_several_processes(
                state._app, request.environ, has_looked=state._has_looked_for_siblings
            )
        return state

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
        if kept is None:
            return Settings.from_config(self._app.config)
        return kept if self._redis is not None else kept.with_url_of(self._app.config)

    def keep_settings(self) -> Settings:
        """Return the application's settings, which are kept from now on.

        :raises TypeError: if a setting has the wrong type.
        :raises ValueError: if a setting is out of range.
        """
        self._settings = self.settings
        return self._settings

    @property
    def unknown_settings(self) -> list[str]:
        """The names in the application's configuration that look like settings and are not."""
        return unknown_keys(self._app.config)

    @property
    def streams(self) -> Streams:
        """The state that the application's streams share."""
        with self._lock:
            if self._streams is None:
                self._streams = Streams(self.keep_settings())
            return self._streams

    def client(self) -> redis.StrictRedis:
        """Return the application's client.

        :raises KeyError: if no URL is set.
        :raises ValueError: if the URL can't be parsed.
        :raises TypeError: if the URL is one of a cluster, which has no such client.
        """
        source = self.source()
        if isinstance(source, ClusterNodes):
            raise TypeError(source.explain_client())
        return source

    def source(self) -> redis.StrictRedis | ClusterNodes:
        """Return the application's client, or the cluster that it is configured to use.

        :raises KeyError: if no URL is set.
        :raises ValueError: if the URL can't be parsed.
        """
        own = self._redis or self._find_redis()
        if not greenlets.in_foreign_thread():
            return own.source
        source = own.connections.new_source()
        if isinstance(source, redis.StrictRedis):
            self._clients_of_threads.add(source)
        return source

    def publisher_for(self, source: object) -> Publisher:
        """Return the publisher for a client: our own connections if it is the application's.

        :param source: The client, or what :meth:`source` has returned.
        """
        own = self._redis
        if own is not None and (
            source is own.source
            or (isinstance(source, redis.Redis) and source in self._clients_of_threads)
        ):
            return own.connections.publisher
        if is_cluster_client(source):
            return ClusterClientPublisher(source)
        return ClientPublisher(source)

    def hub(self, source: object) -> Hub:
        """Return the hub for a Redis or a cluster.

        :param source: A client, or what :meth:`source` has returned.
        :raises TypeError: if the client does not say which Redis that is.
        """
        upstream = self._upstream(source)
        # A log is in one database; an event that is only published reaches all databases.
        key = (upstream.key, upstream.database if self.settings.history else None)
        hub = self._hubs.get(key)
        if hub is None:
            settings = self.keep_settings()
            history = None
            if settings.history:
                history = History(settings.retention, upstream.logs, upstream.database)
            # If two threads do this at the same time, one wins; an unused hub costs nothing.
            hub = self._hubs.setdefault(
                key,
                Hub(
                    upstream.subscribe,
                    self.provider,
                    keepalive=settings.keepalive,
                    history=history,
                    notices=self.notices,
                    is_stopping=worker.is_stopping,
                ),
            )
        return hub

    def seat(self, source: object, names: tuple[bytes, ...], client: object) -> Seat | None:
        """Return the place of a new stream among the members of its channels, if they have any.

        :param source: A client, or what :meth:`source` has returned.
        :param client: The client's name. Anything but text with 1 to 256 characters is none.
        :raises TypeError: if the client of Redis does not say which Redis that is.
        """
        settings = self.settings
        channels = tuple(filter(settings.has_presence, names)) if settings.presence else ()
        if not channels:
            return None
        if client is None or (isinstance(client, str) and not client):
            return None
        try:
            name = check_client(client)
        except (TypeError, ValueError) as error:
            if not self._has_refused_name:
                self._has_refused_name = True
                _log.warning("g.sse_client makes nobody a member: %s", error)
            return None
        return Seat(self._roster(source), channels, name)

    def _roster(self, source: object) -> Roster:
        upstream = self._upstream(source)
        key = (upstream.key, upstream.database)
        roster = self._rosters.get(key)
        if roster is None:
            publisher = self.publisher_for(source)
            if isinstance(publisher, ClientPublisher):
                # The client may be a proxy, which does not work outside the request.
                publisher = ClientPublisher(redis.StrictRedis(connection_pool=pool_of(source)))
            announcer = Announcer(
                self._app, publisher, self.keep_settings(), self.notices, self.wake_hubs
            )
            new = Roster(publisher, announcer.announce)
            roster = self._rosters.setdefault(key, new)
            roster.prepare()
        return roster

    def wake_hubs(self) -> None:
        """Make the hubs look for events that they would otherwise find only by polling."""
        if self._hubs and self._redis is not None and self.settings.in_memory:
            for hub in [*self._hubs.values()]:
                hub.wake()

    def settle(self, seconds: float) -> None:
        """Wait until the clients whose streams have begun are members of their channels.

        :param seconds: How long to wait at most.
        """
        for roster in [*self._rosters.values()]:
            roster.settle(seconds)

    def rest(self, seconds: float) -> None:
        """End the threads that have nothing to do, and wait until they have ended.

        :param seconds: How long to wait for each at most.
        """
        for hub in [*self._hubs.values()]:
            hub.rest(seconds)
        for roster in [*self._rosters.values()]:
            roster.finish(seconds)
        self.notices.finish(seconds)

    def _find_redis(self) -> _Redis:
        with self._lock:
            if self._redis is None:
                settings = self.settings
                connections = Connections.of(settings)
                source = connections.source
                if isinstance(source, redis.StrictRedis) and not settings.in_memory:
                    # Closing it, or changing its callbacks, has no effect on other applications.
                    source = redis.StrictRedis(connection_pool=source.connection_pool)
                # The garbage collector may have caused another call of this method in between.
                if self._redis is None:
                    self._settings = settings
                    self._redis = _Redis(connections, source)
                    if isinstance(connections.publisher, PoolPublisher):
                        connections.publisher.add_observer(self._listening)
            return self._redis

    def _upstream(self, source: object) -> Upstream:
        if is_cluster_client(source):
            source = ClusterNodes.of(source)
        if isinstance(source, ClusterNodes):
            return of_cluster(source)
        # The client may be a proxy, which does not work outside the request.
        client = redis.StrictRedis(connection_pool=pool_of(source))
        return of_server(client, partial(self._subscribe, client), partial(self._open, client))

    def _subscribe(self, client: redis.Redis) -> PubSubConnection:
        return (
            self._listening.subscribe(client) if self._is_own(client) else PubSubConnection(client)
        )

    def _open(self, client: redis.Redis) -> RedisConnection:
        return self._listening.open(client) if self._is_own(client) else open_connection(client)

    def _is_own(self, client: redis.Redis) -> bool:
        own = self._redis
        return (
            own is not None
            and isinstance(own.source, redis.StrictRedis)
            and client.connection_pool is own.source.connection_pool
        )


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


def lacks_url(error: KeyError) -> bool:
    """Return whether *error* says that the current application has no Redis URL.

    A :class:`KeyError` from an overridden method may say anything else.
    """
    try:
        State.current().source()
    except KeyError as missing:
        return missing.args == error.args
    except (ValueError, ModuleNotFoundError):
        return False
    return False
