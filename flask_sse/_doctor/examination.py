"""``flask sse doctor``: all checks, in an order in which each builds on those before.

It runs in the command's thread, in an application context, and waits for Redis and the server.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, cast
from urllib.parse import parse_qs, urlsplit

import redis
from flask import current_app
from redis.cluster import RedisCluster

from flask_sse._doctor import settings as _doctor_settings
from flask_sse._doctor import stream
from flask_sse._doctor.examined import App, Examined
from flask_sse._doctor.finding import Finding, attempt, ok, unforeseen, warn
from flask_sse._doctor.redis_cluster import Cluster
from flask_sse._doctor.redis_node import PROBE
from flask_sse._doctor.redis_server import Server
from flask_sse._doctor.stream import Subject
from flask_sse._redis.clients import find_broker
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._state import State, lacks_url

_UNBOUNDED: Final = 1 << 31
"""The size of a pool that has no limit, in redis-py before 8."""


class ExaminedBlueprint(Protocol):
    """The part of a blueprint that is used here."""

    def publish(self, data: Any, type: str | None = None, *, channel: str = "sse") -> int:
        """Publish an event; return how many processes are subscribed to the channel."""
        ...


class Target(NamedTuple):
    """How to connect to a stream from outside."""

    url: str
    headers: Mapping[str, str]
    origin: str | None
    """The origin of a page on another host that connects to it."""


def examine(
    blueprint: ExaminedBlueprint,
    source: Callable[[], object],
    target: Target | None,
    channel: str | None,
    patience: float,
) -> Iterator[Finding]:
    """Yield the finding of each check as soon as it is known.

    :param source: Returns the blueprint's client, or the cluster in the URL.
    :param channel: The channel to publish to; by default the URL's channel, or a new one.
    :param patience: Seconds to wait for anything that should arrive at once.
    """
    unknown = State.of(current_app).unknown_settings
    yield from attempt("settings", partial(_doctor_settings.check_names, unknown))
    try:
        state = State.current()
        settings = state.settings
    except (TypeError, ValueError) as error:
        yield _doctor_settings.refused(error)
        return
    except Exception as error:  # noqa: BLE001 - the finding shows it
        yield unforeseen("settings", error)
        return
    finding, make = _look_for_redis(source, state)
    yield finding
    yield from _doctor_settings.examine(settings)
    examined: Examined | None = None
    if make is not None:
        try:
            examined = make(patience)
        except Exception as error:  # noqa: BLE001 - the finding shows it
            yield unforeseen("redis", error)
    named = channel or _channel_of(target)
    name = named or f"{PROBE}.{secrets.token_hex(8)}"
    app = App(settings, current_app.json, name, named is None, partial(_publish, blueprint))
    encoded = app.encoded
    try:
        if examined is not None:
            yield from examined.examine(app)
        if target is not None:
            subject = Subject(
                url=target.url,
                headers=target.headers,
                origin=target.origin,
                channel=name,
                has_history=settings.retention(encoded) is not None,
                has_ids=bool(settings.history),
                keepalive=settings.keepalive,
                patience=patience,
                publish=(
                    partial(app.publish, name)
                    if examined is not None and examined.can_publish
                    else None
                ),
                listeners=partial(_count_listeners, examined, encoded),
            )
            yield from attempt("connection", partial(stream.examine, subject))
    finally:
        if examined is not None:
            _forget(examined, app)


_Make = Callable[[float], Examined]
"""Makes the checks of a Redis, which wait for some seconds at most."""


def _look_for_redis(source: Callable[[], object], state: State) -> tuple[Finding, _Make | None]:
    """Return the finding about the Redis URL, and the Redis if it can be checked."""
    settings = state.settings
    try:
        given = source()
        is_own = settings.redis_url is not None and given is state.source()
        pool = getattr(given, "connection_pool", None)
    except KeyError as error:
        is_missing = lacks_url(error)
        return _doctor_settings.no_url() if is_missing else unforeseen("url", error), None
    except (ValueError, ModuleNotFoundError) as error:
        return _doctor_settings.unusable_url(error), None
    except Exception as error:  # noqa: BLE001 - the finding shows it
        return unforeseen("url", error), None
    if is_own:
        make = None
        if not settings.in_memory:
            broker = find_broker(settings)
            make = _checks_of(given, broker.connections)
        return _doctor_settings.check_url(settings), make
    most = int(pool.max_connections) if isinstance(pool, redis.ConnectionPool) else _UNBOUNDED
    make = _checks_of(given, most if most < _UNBOUNDED else None)
    if make is not None:
        return ok("url", "an overridden redis provides its own"), make
    finding = warn(
        "url",
        f"the overridden redis can't be checked: it is of the type {type(given).__name__}",
        "return a redis.StrictRedis, which streams need, or a redis.cluster.RedisCluster",
    )
    return finding, None


def _checks_of(source: object, publishing: int | None) -> _Make | None:
    """Return what makes the checks of a Redis, or `None` if it can't be checked.

    :param publishing: How many connections a process may use for publishing to a single Redis.
    """
    if isinstance(source, RedisCluster):
        return lambda patience: Cluster(ClusterNodes.of(source), patience)
    if isinstance(source, ClusterNodes):
        return partial(Cluster, source)
    if isinstance(getattr(source, "connection_pool", None), redis.ConnectionPool):
        return partial(Server, cast("redis.StrictRedis", source), publishing)
    return None


def _channel_of(target: Target | None) -> str | None:
    if target is None:
        return None
    try:
        query = urlsplit(target.url).query
    except ValueError:
        # The check of the connection explains it.
        return None
    return parse_qs(query).get("channel", [None])[0]


def _publish(blueprint: ExaminedBlueprint, channel: str, data: str) -> int:
    return blueprint.publish(data, PROBE, channel=channel)


def _count_listeners(examined: Examined | None, channel: bytes) -> int | None:
    return None if examined is None else examined.count_listeners(channel)


def _forget(examined: Examined, app: App) -> None:
    """Delete the log of a channel that was made for the checks, and close the connections."""
    # The checks have told what is wrong with this Redis.
    with contextlib.suppress(Exception):
        if app.is_new:
            examined.forget(app)
    with contextlib.suppress(Exception):
        examined.close()
