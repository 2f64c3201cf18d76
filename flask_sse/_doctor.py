"""``flask sse doctor``: every check, in the order in which one builds on the other.

For the thread of the command, in an application's context. It waits for Redis and for the server.
"""

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, cast
from urllib.parse import parse_qs, urlsplit

import redis
from flask import current_app

from flask_sse import _doctor_redis, _doctor_settings, _doctor_stream, _history
from flask_sse._doctor_redis import Client
from flask_sse._doctor_stream import Place
from flask_sse._finding import Finding, ok, warn
from flask_sse._request import current_state, encode_channel
from flask_sse._settings import Settings

_TYPE: Final = "flask-sse.doctor"


class Publisher(Protocol):
    """What is used of a blueprint."""

    @property
    def redis(self) -> redis.StrictRedis:
        """The client for the current application's Redis."""
        ...

    def publish(self, data: Any, type: str | None = None, *, channel: str = "sse") -> int:
        """Publish an event; return how many processes are subscribed to the channel."""
        ...


class Visit(NamedTuple):
    """How to connect to a stream from outside."""

    url: str
    headers: Mapping[str, str]
    origin: str | None
    """The origin of a page that connects to it from another host."""


def examine(
    blueprint: Publisher, visit: Visit | None, channel: str | None, patience: float
) -> Iterator[Finding]:
    """Yield the finding of each check, as soon as it is there.

    :param channel: Where to publish events; by default the URL's channel, or a new one.
    :param patience: Seconds to wait for what should come at once.
    """
    try:
        state = current_state()
        settings = state.settings
    except (TypeError, ValueError) as error:
        yield _doctor_settings.refused(error)
        return
    client = None
    try:
        given = blueprint.redis
        is_own = settings.redis_url is not None and given is state.client()
    except (KeyError, ValueError, ModuleNotFoundError) as error:
        yield _doctor_settings.unusable_url(error)
    else:
        yield _doctor_settings.check_url(settings) if is_own else _check_overridden(given)
        if not (is_own and settings.in_memory) and _has_pool(given):
            client = _doctor_redis.new_client(given, patience)
    yield from _doctor_settings.examine(settings)
    named = channel or _channel_of(visit)
    name = named or f"{_TYPE}.{secrets.token_hex(8)}"
    publish = partial(_publish, blueprint, name)
    try:
        if client is not None:
            yield from _doctor_redis.examine(
                client,
                settings,
                current_app.json,
                channel=encode_channel(name),
                publish=publish,
                patience=patience,
            )
        if visit is not None:
            place = Place(
                url=visit.url,
                headers=visit.headers,
                origin=visit.origin,
                channel=name,
                has_history=settings.retention(encode_channel(name)) is not None,
                keepalive=settings.keepalive,
                patience=patience,
                publish=None if client is None else publish,
                listeners=partial(_count_listeners, client, encode_channel(name)),
            )
            yield from _doctor_stream.examine(place)
    finally:
        if named is None:
            _forget(client, settings, encode_channel(name))


def _channel_of(visit: Visit | None) -> str | None:
    if visit is None:
        return None
    return parse_qs(urlsplit(visit.url).query).get("channel", [None])[0]


def _publish(blueprint: Publisher, channel: str, data: str) -> int:
    return blueprint.publish(data, _TYPE, channel=channel)


def _check_overridden(given: object) -> Finding:
    if _has_pool(given):
        return ok("url", "an overridden redis brings its own")
    return warn(
        "url",
        f"the overridden redis can't be looked at: it is of the type {type(given).__name__}",
        "return a redis.StrictRedis, without which there is no stream",
    )


def _has_pool(given: object) -> bool:
    return isinstance(getattr(given, "connection_pool", None), redis.ConnectionPool)


def _count_listeners(client: redis.StrictRedis | None, channel: bytes) -> int | None:
    if client is None:
        return None
    try:
        [(_, number)] = cast("Client", client).pubsub_numsub(channel)
    except redis.RedisError:
        return None
    return int(number)


def _forget(client: redis.StrictRedis | None, settings: Settings, channel: bytes) -> None:
    """Delete the log of a channel that was made for the checks."""
    if client is None:
        return
    with contextlib.suppress(redis.RedisError):
        if settings.retention(channel) is not None:
            cast("Client", client).delete(*_history.keys(channel))
    client.close()
