"""Checks of the Redis that an application is configured to use.

They wait for Redis, each with a timeout.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol, cast

import redis
from flask.json.provider import JSONProvider
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from flask_sse import _history
from flask_sse._finding import Finding, fail, in_words, ok, warn
from flask_sse._history import Event, EventId
from flask_sse._message import from_payload
from flask_sse._settings import Settings

_CONNECTIONS_A_PROCESS: Final = 52
"""Two for subscriptions, and up to 50 for publishing."""
_OLDEST_WITH_HISTORY: Final = 5
_WATCH: Final = 1.0
"""Seconds for which to watch other publishers, if the patience allows that much."""
_PROBE: Final = "flask-sse.doctor"


class _PubSub(Protocol):
    """The methods used of redis-py's subscriptions, with the types that they lack."""

    def subscribe(self, channel: bytes) -> None: ...
    def psubscribe(self, pattern: str) -> None: ...
    def get_message(self, *, timeout: float) -> dict[str, Any] | None: ...
    def close(self) -> None: ...


class Client(Protocol):
    """The methods used of a Redis client, with the types that it lacks."""

    def ping(self) -> object:
        """Check that Redis answers."""

    def info(self, section: str) -> dict[str, Any]:
        """Return what Redis says about itself."""
        ...

    def pubsub(self) -> _PubSub:
        """Return a subscription without channels."""
        ...

    def pubsub_numsub(self, *channels: bytes) -> list[tuple[object, int]]:
        """Return how many connections are subscribed to each channel."""
        ...

    def delete(self, *keys: bytes) -> int:
        """Delete keys."""
        ...


def new_client(given: redis.StrictRedis, seconds: float) -> redis.StrictRedis:
    """Return a client like the given one, but with a timeout and without retries."""
    pool = given.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        # Its connections can find the primary only through this pool.
        return given
    kwargs = {
        key: value
        for key, value in pool.connection_kwargs.items()
        # These options belong to the pool's own connections (redis-py 7 and later).
        if not key.startswith(("maint", "oss_cluster_maint", "orig_"))
    }
    kwargs.update(
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        decode_responses=False,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        retry_on_timeout=False,
    )
    own = redis.ConnectionPool(connection_class=pool.connection_class, **kwargs)
    return redis.StrictRedis(connection_pool=own)


def examine(
    client: redis.StrictRedis,
    settings: Settings,
    provider: JSONProvider,
    *,
    channel: bytes,
    publish: Callable[[str], int],
    patience: float,
) -> Iterator[Finding]:
    """Yield the findings about a Redis; stop if it does not answer.

    :param channel: The channel to publish to.
    :param publish: Publishes data to that channel, as the application does.
    """
    own = cast("Client", client)
    answered = _check_answer(own)
    yield answered
    if answered.level != "ok":
        return
    yield from _check_version(own, needs_history=bool(settings.history))
    yield from _check_connections(own)
    yield from _check_round_trip(own, channel, publish, patience)
    if settings.history:
        yield _check_scripts(client)
        yield from _check_memory(own)
        yield _check_publishers(own, settings, provider, min(_WATCH, patience))


def _check_answer(client: Client) -> Finding:
    started = time.perf_counter()
    try:
        with contextlib.suppress(NoPermissionError):
            client.ping()
    except redis.AuthenticationError as error:
        return fail(
            "redis",
            f"it refuses the user or the password: {error}",
            "correct them in the URL, redis://user:password@host, percent-encoded; a password "
            "without a user is redis://:password@host",
        )
    except redis.TimeoutError:
        return fail(
            "redis",
            "it does not answer in time",
            "check for a firewall in between, or a Redis that is stopped or busy",
        )
    except redis.RedisError as error:
        return fail(
            "redis",
            f"there is no connection: {error}",
            "start Redis, or correct host and port in the URL",
        )
    return ok("redis", f"it answers after {in_words(time.perf_counter() - started)}")


def _check_version(client: Client, *, needs_history: bool) -> Iterator[Finding]:
    try:
        version = str(client.info("server")["redis_version"])
    except (redis.RedisError, KeyError):
        yield warn(
            "redis version",
            "this user may not ask for it",
            "do nothing if it is 5 or later; otherwise allow INFO",
        )
        return
    major = version.partition(".")[0]
    if needs_history and major.isdecimal() and int(major) < _OLDEST_WITH_HISTORY:
        yield fail("redis version", version, "SSE_HISTORY needs Redis 5 or later")
    else:
        yield ok("redis version", version)


def _check_connections(client: Client) -> Iterator[Finding]:
    try:
        known = client.info("clients")
        most, used = int(known["maxclients"]), int(known["connected_clients"])
    except (redis.RedisError, KeyError):
        # Redis before 7.0 does not say.
        return
    left = most - used
    found = f"{used} of {most} are in use; a process of the app uses up to {_CONNECTIONS_A_PROCESS}"
    if left < _CONNECTIONS_A_PROCESS:
        yield fail("redis connections", found, "raise maxclients in the configuration of Redis")
    elif left < most // 5:
        yield warn("redis connections", found, "raise maxclients in the configuration of Redis")
    else:
        yield ok("redis connections", found)


def _check_round_trip(
    client: Client, channel: bytes, publish: Callable[[str], int], patience: float
) -> Iterator[Finding]:
    with contextlib.closing(client.pubsub()) as pubsub:
        try:
            pubsub.subscribe(channel)
            _await(pubsub, lambda message: message["type"] == "subscribe", patience)
        except redis.RedisError as error:
            yield fail("subscribe", str(error), _allow("subscribe to", channel))
            return
        yield ok("subscribe", "Redis has confirmed a subscription")
        token = secrets.token_hex(8)
        started = time.perf_counter()
        try:
            publish(token)
        except redis.RedisError as error:
            yield fail("publish", str(error), _allow("publish to", channel))
            return
        try:
            _await(pubsub, lambda message: token.encode() in bytes(message["data"]), patience)
        except redis.RedisError:
            yield fail(
                "publish",
                "an event was published but has not arrived",
                "publish and subscribe on the same Redis, not on a replica or another shard",
            )
            return
        yield ok("publish", f"an event arrives after {in_words(time.perf_counter() - started)}")


def _await(pubsub: _PubSub, wanted: Callable[[dict[str, Any]], bool], patience: float) -> None:
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        message = pubsub.get_message(timeout=left)
        if message is not None and wanted(message):
            return
    raise redis.TimeoutError(f"nothing arrived within {patience:g} s")


def _allow(verb: str, channel: bytes) -> str:
    return (
        f"allow the user in the URL to {verb} {channel.decode(errors='replace')}, for example with "
        f"ACL SETUSER and &*; if it may use only some channels, choose one with --channel"
    )


def _check_scripts(client: redis.StrictRedis) -> Finding:
    channel = f"{_PROBE}.{secrets.token_hex(8)}".encode()
    event = Event(b'{"data": "", "id": "', b'"}', 1, 60)
    try:
        _history.append(client, channel, event)
        _history.newest_position(client, channel)
        cast("Client", client).delete(*_history.keys(channel))
    except redis.RedisError as error:
        return fail("history", str(error), "allow this user these commands, on keys of flask-sse:*")
    return ok("history", "Redis keeps an event and returns it")


def _check_memory(client: Client) -> Iterator[Finding]:
    try:
        known = client.info("memory")
        limit, policy = int(known["maxmemory"]), str(known["maxmemory_policy"])
    except (redis.RedisError, KeyError):
        yield warn("redis memory", "this user may not ask for the limit", "allow INFO")
        return
    if not limit:
        yield ok("redis memory", "there is no limit, so no history is evicted")
    elif policy == "noeviction":
        yield ok("redis memory", "no history is evicted; at the limit, publishing raises an error")
    else:
        yield warn(
            "redis memory",
            f"at its limit Redis evicts histories too ({policy}), and clients get sse.reset",
            "set maxmemory-policy to noeviction, or use a Redis that is not a cache",
        )


def _check_publishers(
    client: Client, settings: Settings, provider: JSONProvider, seconds: float
) -> Finding:
    """Watch for events whose publisher has a different configuration."""
    number, foreign, logged = 0, set[str](), set[str]()
    with contextlib.closing(client.pubsub()) as pubsub:
        try:
            pubsub.psubscribe("*")
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0:
                message = pubsub.get_message(timeout=left)
                if message is None or message["type"] != "pmessage":
                    continue
                is_logged = _is_logged(bytes(message["data"]), provider)
                if is_logged is None:
                    continue
                number += 1
                has_history = settings.retention(bytes(message["channel"])) is not None
                if is_logged != has_history:
                    name = bytes(message["channel"]).decode(errors="replace")
                    (foreign if has_history else logged).add(name)
        except redis.RedisError as error:
            return warn("publishers", f"they can't be watched: {error}", "allow PSUBSCRIBE to *")
    if foreign:
        return warn(
            "publishers",
            f"somebody publishes without history to {', '.join(sorted(foreign))}",
            "give that process the same SSE_HISTORY, or make it publish to another channel",
        )
    if logged:
        return warn(
            "publishers",
            f"somebody publishes with history to {', '.join(sorted(logged))}, which has no history "
            f"here",
            "give all processes the same SSE_HISTORY",
        )
    return ok("publishers", f"{number} events in {seconds:g} s, all of which match SSE_HISTORY")


def _is_logged(payload: bytes, provider: JSONProvider) -> bool | None:
    """Return whether an event is from a log, or `None` if the payload is not an event."""
    try:
        message = from_payload(payload, provider)
    except (ValueError, TypeError):
        return None
    return isinstance(message.id, str) and EventId.parse(message.id) is not None
