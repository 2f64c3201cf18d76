"""``flask sse doctor``: all checks, in an order in which each builds on those before.

It runs in the command's thread, in an application context, and waits for Redis and the server.
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
from flask_sse._finding import Finding, Level, ok, warn
from flask_sse._request import current_state, encode_channel
from flask_sse._settings import Settings
from flask_sse._state import State

_TYPE: Final = "flask-sse.doctor"


class Publisher(Protocol):
    """The parts of a blueprint that are used here."""

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
    """The origin of a page on another host that connects to it."""


def examine(
    blueprint: Publisher, visit: Visit | None, channel: str | None, patience: float
) -> Iterator[Finding]:
    """Yield the finding of each check as soon as it is known.

    :param channel: The channel to publish to; by default the URL's channel, or a new one.
    :param patience: Seconds to wait for anything that should arrive at once.
    """
    try:
        state = current_state()
        settings = state.settings
    except (TypeError, ValueError) as error:
        yield _doctor_settings.refused(error)
        return
    finding, given = _look_for_redis(blueprint, state)
    yield finding
    yield from _doctor_settings.examine(settings)
    client = None if given is None else _doctor_redis.new_client(given, patience)
    named = channel or _channel_of(visit)
    name = named or f"{_TYPE}.{secrets.token_hex(8)}"
    encoded = encode_channel(name)
    publish = partial(_publish, blueprint, name)
    can_publish = False
    try:
        if client is not None:
            for finding in _doctor_redis.examine(
                client,
                settings,
                current_app.json,
                channel=encoded,
                publish=publish,
                patience=patience,
            ):
                can_publish = can_publish or finding[:2] == (Level.OK, "publish")
                yield finding
        if visit is not None:
            place = Place(
                url=visit.url,
                headers=visit.headers,
                origin=visit.origin,
                channel=name,
                has_history=settings.retention(encoded) is not None,
                keepalive=settings.keepalive,
                patience=patience,
                publish=publish if can_publish else None,
                listeners=partial(_count_listeners, client, encoded),
            )
            yield from _doctor_stream.examine(place)
    finally:
        if named is None:
            _forget(client, settings, encoded)


def _look_for_redis(blueprint: Publisher, state: State) -> tuple[Finding, redis.StrictRedis | None]:
    """Return the finding about the Redis URL, and the client if the URL can be used."""
    settings = state.settings
    try:
        given = blueprint.redis
        is_own = settings.redis_url is not None and given is state.client()
    except (KeyError, ValueError, ModuleNotFoundError) as error:
        return _doctor_settings.unusable_url(error), None
    if is_own:
        return _doctor_settings.check_url(settings), None if settings.in_memory else given
    if isinstance(getattr(given, "connection_pool", None), redis.ConnectionPool):
        return ok("url", "an overridden redis provides its own"), given
    finding = warn(
        "url",
        f"the overridden redis can't be checked: it is of the type {type(given).__name__}",
        "return a redis.StrictRedis, which streams need",
    )
    return finding, None


def _channel_of(visit: Visit | None) -> str | None:
    if visit is None:
        return None
    return parse_qs(urlsplit(visit.url).query).get("channel", [None])[0]


def _publish(blueprint: Publisher, channel: str, data: str) -> int:
    return blueprint.publish(data, _TYPE, channel=channel)


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
