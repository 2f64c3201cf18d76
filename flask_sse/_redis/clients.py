"""Makes Redis clients from the settings.

Making a client does not connect. The clients can be shared between threads.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import redis
from redis.sentinel import SentinelConnectionPool

from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.options import own_options
from flask_sse._redis.pool import CheckedPool, CheckedSentinelPool
from flask_sse._redis.primary import PublishingClient
from flask_sse._redis.sentinel import BoundedConnection, BoundedSentinel, BoundedSSLConnection
from flask_sse._redis.url import (
    OptionError,
    RedisURL,
    Sentinels,
    explain_rejected,
    is_switch,
    may_show,
    options_in,
    parse,
)
from flask_sse._settings import URL_KEYS, Settings

_NO_URL: Final = "Must set a redis connection URL in app config."
_KEYS: Final = " or ".join(URL_KEYS)
_CONNECTIONS: Final = 50
_UNBOUNDED: Final = 1 << 31
_REJECTED: Final = (ValueError, TypeError, redis.RedisError)
"""The exceptions of redis-py about an option."""


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


def find_broker(settings: Settings) -> Broker | ClusterNodes:
    """Return the broker for the Redis that an application names, or the nodes of its cluster.

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
        return _parse_broker(url)
    except _REJECTED as error:
        # The reason and the traceback may show part of the password.
        text = _explain(url, error)
    raise ValueError(text)


def _parse_broker(url: str) -> Broker | ClusterNodes:
    parsed = parse(url)
    if parsed.nodes:
        nodes = ClusterNodes(parsed.nodes, parsed.options)
        _check_options(nodes.client(nodes.start[0]))
        return nodes
    broker = _at(parsed) if parsed.sentinels is None else _with_sentinels(parsed, parsed.sentinels)
    for client in (broker.new_client(), broker.new_publishing_client()):
        _check_options(client)
    return broker


def _check_options(client: redis.StrictRedis) -> None:
    # This does not connect yet, but redis-py rejects options that it does not know.
    client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)


def _explain(url: str, error: Exception) -> str:
    """Return the text of the error for a URL that can't be used."""
    found = error if isinstance(error, OptionError) else _find_rejected(url)
    if found is not None and may_show(url, found.option):
        return f"{_KEYS} can't be used: {found}"
    return (
        f"{_KEYS} is not a URL that redis-py can read; check that every special character of the "
        f"password is percent-encoded, that the database is a number, and that redis-py knows "
        f"each option and accepts its value"
    )


def _find_rejected(url: str) -> OptionError | None:
    """Return the error for the first option that redis-py rejects alone."""
    try:
        options = [*options_in(url)]
    except ValueError:
        # It is not a URL at all.
        return None
    base = url.partition("?")[0]
    switches = [option for option in options if is_switch(option[0])]
    for option in options:
        try:
            _parse_broker(f"{base}?{urlencode([option, *switches])}")
        except _REJECTED:
            return explain_rejected(option)
    return None


def _at(url: RedisURL) -> Broker:
    """Return the broker for a URL that redis-py supports."""

    def new_publishing_client() -> redis.StrictRedis:
        return PublishingClient(CheckedPool(**_for_publishing(url.options)))

    def new_client() -> redis.StrictRedis:
        # An option in the URL takes precedence over these.
        known: dict[str, Any] = {"max_connections": _UNBOUNDED}
        if "ssl_check_hostname" in url.options:
            known["ssl_check_hostname"] = url.options["ssl_check_hostname"]
        # redis-py leaves the types of some parameters out.
        return redis.StrictRedis.from_url(  # pyright: ignore[reportUnknownMemberType]
            url.plain, **known
        )

    return Broker(new_client, new_publishing_client, _bound(url.options))


def _with_sentinels(url: RedisURL, sentinels: Sentinels) -> Broker:
    """Return the broker for the primary that sentinels name."""
    known = {key: value for key, value in url.options.items() if key != "connection_class"}

    def new_client() -> redis.StrictRedis:
        options = {"max_connections": _UNBOUNDED, **known, "ssl": url.is_tls}
        return redis.StrictRedis(
            connection_pool=SentinelConnectionPool(sentinels.service, new_sentinel(), **options)
        )

    def new_publishing_client() -> redis.StrictRedis:
        options = _for_publishing(known)
        options["connection_class"] = BoundedSSLConnection if url.is_tls else BoundedConnection
        return PublishingClient(CheckedSentinelPool(sentinels.service, new_sentinel(), **options))

    def new_sentinel() -> BoundedSentinel:
        return BoundedSentinel(sentinels.addresses, sentinels.options)

    return Broker(new_client, new_publishing_client, _bound(url.options))


def _bound(options: Mapping[str, Any]) -> int:
    return options.get("max_connections") or _CONNECTIONS


def _for_publishing(options: Mapping[str, Any]) -> dict[str, Any]:
    return {**own_options(options), "max_connections": _UNBOUNDED}


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
