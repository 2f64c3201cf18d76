"""Finds the primary through sentinels, within one bound for all of them.

redis-py asks one sentinel after the other, each with several attempts. If one accepted
connections and never answered, that took a minute.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import redis
from redis.connection import SSLConnection
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelManagedConnection

from flask_sse._redis.options import TIMEOUT, own_options
from flask_sse._system.clock import monotonic

_LEAST: Final = 0.1


class BoundedSentinel(Sentinel):
    """Sentinels that are asked in turn, for 5 seconds in total.

    Each gets an equal share of the time that is left, and the connection to the primary gets
    the last share. It can be shared between threads.

    :param addresses: The host and the port of each sentinel.
    :param options: The options of the connections to them.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], options: Mapping[str, Any]) -> None:
        # redis-py leaves the types out.
        cast("Any", super()).__init__(addresses, sentinel_kwargs=dict(options))

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the host and the port of the primary.

        :raises redis.RedisError: if no sentinel names one.
        """
        deadline = monotonic() + TIMEOUT
        asked: list[redis.Redis] = [*self.sentinels]
        problems: list[str] = []
        for number, sentinel in enumerate(asked):
            share = max((deadline - monotonic()) / (len(asked) - number + 1), _LEAST)
            pool = sentinel.connection_pool
            try:
                state = _ask(pool, share).get(service_name)
            except redis.RedisError as error:
                where = pool.connection_kwargs
                problems.append(f"{where.get('host')}:{where.get('port')}: {error}")
                continue
            if state is not None and self._is_up(state, service_name):
                # The next search begins with this one.
                self.sentinels = [sentinel, *(other for other in asked if other is not sentinel)]
                return state["ip"], state["port"]
        reasons = f" ({'; '.join(problems)})" if problems else ""
        raise MasterNotFoundError(f"No master found for {service_name!r}{reasons}")

    def _is_up(self, state: dict[str, Any], service_name: str) -> bool:
        own = cast("Any", self)  # redis-py leaves the types out.
        return bool(own.check_master_state(state, service_name))


def _ask(pool: redis.ConnectionPool, seconds: float) -> dict[str, dict[str, Any]]:
    """Ask one sentinel for all primaries, on a new connection."""
    known = pool.connection_kwargs
    bounds = {
        key: min(seconds, known.get(key) or seconds)
        for key in ("socket_timeout", "socket_connect_timeout")
    }
    own = redis.ConnectionPool(
        connection_class=pool.connection_class, **own_options(known, **bounds)
    )
    with contextlib.closing(own):
        client: Any = redis.Redis(connection_pool=own)
        return cast("dict[str, dict[str, Any]]", client.sentinel_masters())


class BoundedConnection(SentinelManagedConnection):
    """A connection to the primary; finding it takes part of the time for connecting."""

    def __init__(self, **kwargs: Any) -> None:
        cast("Any", super()).__init__(**kwargs)
        self._bound: float = kwargs.get("socket_connect_timeout") or TIMEOUT
        self._began = 0.0

    def connect(self) -> None:
        """Find the primary and connect to it."""
        self._began = monotonic()
        cast("Any", super()).connect()

    def connect_to(self, address: tuple[str, int]) -> None:
        """Connect in the time that is left."""
        left = self._bound - (monotonic() - self._began)
        self.socket_connect_timeout = max(left, _LEAST)
        cast("Any", super()).connect_to(address)


class BoundedSSLConnection(BoundedConnection, SSLConnection):
    """The same, over TLS."""
