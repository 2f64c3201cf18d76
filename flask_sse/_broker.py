"""Makes Redis clients from the settings.

Making a client does not connect. The clients can be shared between threads.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, cast
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url  # pyright: ignore[reportUnknownVariableType] - untyped
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from flask_sse._pool import CheckedPool, CheckedSentinelPool
from flask_sse._settings import URL_KEYS, Settings

_NO_URL: Final = "Must set a redis connection URL in app config."
_CONNECTIONS: Final = 50
_UNBOUNDED: Final = 1 << 31
_TIMEOUT: Final = 5.0
_SENTINEL_PORT: Final = 26379
_SENTINEL_SCHEME: Final = "redis+sentinel://"
_SENTINEL_OPTION: Final = "sentinel_"


class Broker(NamedTuple):
    """Makes clients of the Redis that an application names."""

    new_client: Callable[[], redis.StrictRedis]
    """Makes the client that redis-py makes from the same URL, with an unlimited pool.

    1.0 made a client for each access, while redis-py 8 allows 100 connections per client.
    """
    new_publishing_client: Callable[[], redis.StrictRedis]
    """Makes a client that never sends a command twice, with an unlimited pool."""
    connections: int
    """How many connections may be used for publishing."""


def find_broker(settings: Settings) -> Broker:
    """Return the broker for the Redis that an application names.

    :raises KeyError: if the application does not name one.
    :raises ValueError: if the URL can't be parsed.
    :raises ModuleNotFoundError: if ``memory://`` lacks its package.
    """
    url = settings.redis_url
    if url is None:
        raise KeyError(_NO_URL)
    if settings.in_memory:
        return _in_memory()
    try:
        broker = _with_sentinels(url) if url.startswith(_SENTINEL_SCHEME) else _at(url)
        for client in (broker.new_client(), broker.new_publishing_client()):
            # This does not connect yet, but redis-py rejects options that it does not know.
            client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (ValueError, TypeError, redis.RedisError):
        # The reason and the traceback may show part of the password.
        raise ValueError(
            f"{' or '.join(URL_KEYS)} is not a URL that redis-py can read; check that every "
            f"special character of the password is percent-encoded, that the database is a "
            f"number, and that redis-py knows each option and accepts its value"
        ) from None
    return broker


def _at(url: str) -> Broker:
    """Parse a URL that redis-py supports."""
    parts = urlsplit(url)
    if parts.scheme != "unix" and "db" not in parse_qs(parts.query):
        _check_database(parts.path)
    options = cast("dict[str, Any]", parse_url(url))
    publishing = _for_publishing(options)

    def new_publishing_client() -> redis.StrictRedis:
        return redis.StrictRedis(connection_pool=CheckedPool(**publishing))

    def new_client() -> redis.StrictRedis:
        # redis-py leaves the types of some parameters out.
        return redis.StrictRedis.from_url(  # pyright: ignore[reportUnknownMemberType]
            url, max_connections=_UNBOUNDED
        )

    return Broker(new_client, new_publishing_client, _bound(options))


def _with_sentinels(url: str) -> Broker:
    """Parse ``redis+sentinel://user:password@host:port,host:port/service/db``."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("the URL names no service")
    _check_database(db)
    query = parse_qsl(parts.query)
    own = [(key, value) for key, value in query if not key.startswith(_SENTINEL_OPTION)]
    # Everything except the hosts is as in any other URL, so redis-py parses it.
    options = cast("dict[str, Any]", parse_url(f"redis://{login}{at}master/{db}?{urlencode(own)}"))
    del options["host"]
    publishing = _for_publishing(options)
    addresses = [_address(host) for host in hosts.split(",")]
    for_sentinels = {
        "socket_timeout": _TIMEOUT,
        **{
            key.removeprefix(_SENTINEL_OPTION): value
            for key, value in query
            if key.startswith(_SENTINEL_OPTION)
        },
    }

    def new_client(kind: type[SentinelConnectionPool], known: dict[str, Any]) -> redis.StrictRedis:
        sentinels = Sentinel(addresses, sentinel_kwargs=for_sentinels)
        return redis.StrictRedis(connection_pool=kind(service, sentinels, **known))

    return Broker(
        partial(new_client, SentinelConnectionPool, {"max_connections": _UNBOUNDED, **options}),
        partial(new_client, CheckedSentinelPool, publishing),
        _bound(options),
    )


def _check_database(path: str) -> None:
    """Reject a database that is not a number; redis-py would use database 0 instead."""
    int(unquote(path).strip("/") or 0)


def _address(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError("the URL names no sentinel")
    return parts.hostname, parts.port or _SENTINEL_PORT


def _bound(options: dict[str, Any]) -> int:
    return options.get("max_connections") or _CONNECTIONS


def _for_publishing(options: dict[str, Any]) -> dict[str, Any]:
    return {
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
        # A command that has been sent may have been executed: by default, redis-py
        # published an event twice when Redis was silent for longer than the timeout.
        "retry": Retry(NoBackoff(), 0),
        **options,
        "max_connections": _UNBOUNDED,
    }


def _in_memory() -> Broker:
    try:
        import fakeredis  # noqa: PLC0415 - an extra, needed only for memory://
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "memory:// needs the package fakeredis: pip install 'Flask-SSE[memory]'"
        ) from error
    new_client = partial(
        fakeredis.FakeStrictRedis, server=fakeredis.FakeServer(), max_connections=_UNBOUNDED
    )
    return Broker(new_client, new_client, _CONNECTIONS)
