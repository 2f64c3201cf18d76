"""From the settings to a client of Redis.

Making a client connects to nothing. The clients are safe to share between threads.
"""

from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url  # pyright: ignore[reportUnknownVariableType] - untyped
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from flask_sse._settings import URL_KEYS, Settings

_NO_URL: Final = "Must set a redis connection URL in app config."
_CONNECTIONS: Final = 50
_TIMEOUT: Final = 5.0
_SENTINEL_PORT: Final = 26379
_SENTINEL_SCHEME: Final = "redis+sentinel://"
_SENTINEL_OPTION: Final = "sentinel_"


def make_client(settings: Settings) -> redis.StrictRedis:
    """Return a client for the Redis that an application names.

    What a URL says in its query goes before the defaults given here.

    :raises KeyError: if the application names none.
    :raises ValueError: if the URL cannot be understood.
    :raises ModuleNotFoundError: if ``memory://`` lacks its package.
    """
    url = settings.redis_url
    if url is None:
        raise KeyError(_NO_URL)
    if settings.in_memory:
        return _in_memory()
    try:
        pool = _sentinel_pool(url) if url.startswith(_SENTINEL_SCHEME) else _pool(url)
        # It connects to nothing yet, but an option that redis-py does not know is told.
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError):
        # The reason may show a part of the password, and so may the traceback.
        raise ValueError(
            f"{' or '.join(URL_KEYS)} is no URL that redis-py can read; is every special "
            f"character of the password percent-encoded, and each option known to redis-py?"
        ) from None
    return redis.StrictRedis(connection_pool=pool)


class _SentinelPool(SentinelConnectionPool, redis.BlockingConnectionPool):
    """A pool that asks sentinels for the master, and waits for a free connection."""


def _pool(url: str) -> redis.ConnectionPool:
    # The pool that waits for a free connection: with redis-py's other one, more
    # publishing greenlets than connections would lose events.
    return redis.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
        url, **_defaults()
    )


def _sentinel_pool(url: str) -> redis.ConnectionPool:
    """Understand ``redis+sentinel://user:password@host:port,host:port/service/db``."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("the URL names no service")
    query = parse_qsl(parts.query)
    own = [(key, value) for key, value in query if not key.startswith(_SENTINEL_OPTION)]
    # All but the hosts is as in any other URL, and so redis-py reads it.
    options = cast("dict[str, Any]", parse_url(f"redis://{login}{at}master/{db}?{urlencode(own)}"))
    del options["host"]
    options["db"] = int(db or 0)
    sentinels = Sentinel(
        [_address(host) for host in hosts.split(",")],
        sentinel_kwargs={
            "socket_timeout": _TIMEOUT,
            **{
                key.removeprefix(_SENTINEL_OPTION): value
                for key, value in query
                if key.startswith(_SENTINEL_OPTION)
            },
        },
    )
    # redis-py has no types for what makes this pool.
    return _SentinelPool(service, sentinels, **{**_defaults(), **options})  # type: ignore[no-untyped-call]


def _address(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError("the URL names no sentinel")
    return parts.hostname, parts.port or _SENTINEL_PORT


def _defaults() -> dict[str, Any]:
    return {
        "max_connections": _CONNECTIONS,
        "timeout": _TIMEOUT,
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
        # A command that has been sent may have been carried out: by default redis-py
        # delivered one publish twice when Redis was silent for longer than the time-out.
        # A connection of the pool that has died is noticed before anything is sent.
        "retry": Retry(NoBackoff(), 0),
    }


def _in_memory() -> redis.StrictRedis:
    try:
        import fakeredis  # noqa: PLC0415 - an extra, needed for memory:// alone
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "memory:// needs the package fakeredis: pip install 'Flask-SSE[memory]'"
        ) from error
    return fakeredis.FakeStrictRedis(server=fakeredis.FakeServer())
