"""Checks of one Redis server: the only one, or a node of a cluster.

They wait for Redis, each with a timeout.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol

import redis
from redis.exceptions import NoPermissionError

from flask_sse._doctor.finding import Finding, fail, in_words, ok, warn
from flask_sse._redis.options import own_options
from flask_sse._system.clock import monotonic

PROBE: Final = "flask-sse.doctor"
"""How the names of the doctor's own channels begin, and the type of its events."""

_MORE_CLIENTS: Final = "raise maxclients in the configuration of Redis"


class PubSub(Protocol):
    """The methods used of redis-py's subscriptions, with the types that they lack."""

    def subscribe(self, channel: bytes) -> None:
        """Subscribe to a channel."""

    def ssubscribe(self, channel: bytes) -> None:
        """Subscribe to a channel on a node of a cluster."""

    def psubscribe(self, pattern: str) -> None:
        """Subscribe to all channels that match a pattern."""

    def get_message(self, *, timeout: float) -> dict[str, Any] | None:
        """Return what Redis has sent, if anything arrives in time."""
        ...

    def close(self) -> None:
        """Close the connection."""


class ServerCommands(Protocol):
    """The methods used of a Redis client, with the types that it lacks."""

    def ping(self) -> object:
        """Check that Redis answers."""

    def info(self, section: str) -> dict[str, Any]:
        """Return what Redis says about itself."""
        ...

    def pubsub(self) -> PubSub:
        """Return a subscription without channels."""
        ...

    def pubsub_numsub(self, *channels: bytes) -> list[tuple[object, int]]:
        """Return how many connections are subscribed to each channel."""
        ...

    def delete(self, *keys: bytes) -> int:
        """Delete keys."""
        ...

    def execute_command(self, *command: str | bytes | int) -> Any:
        """Execute any command."""


class Room(NamedTuple):
    """How many connections a server has, and how many it may have."""

    used: int
    most: int

    @property
    def left(self) -> int:
        """How many more it may have."""
        return self.most - self.used


def new_client(given: redis.StrictRedis, seconds: float) -> redis.StrictRedis:
    """Return a client like the given one, but with a timeout and without retries."""
    pool = given.connection_pool
    options = own_options(
        pool.connection_kwargs, socket_timeout=seconds, socket_connect_timeout=seconds
    )
    own = redis.ConnectionPool(connection_class=pool.connection_class, **options)
    return redis.StrictRedis(connection_pool=own)


def ping(client: ServerCommands) -> float:
    """Return after how many seconds Redis answers.

    :raises redis.RedisError: if it does not answer, or does not accept the login.
    """
    started = time.perf_counter()
    with contextlib.suppress(NoPermissionError):
        client.ping()
    return time.perf_counter() - started


def explain(error: Exception) -> Finding:
    """Return the finding about a Redis that does not answer."""
    if isinstance(error, redis.AuthenticationError):
        return fail(
            "redis",
            f"it refuses the user or the password: {error}",
            "correct them in the URL, redis://user:password@host, percent-encoded; a password "
            "without a user is redis://:password@host",
        )
    if isinstance(error, redis.TimeoutError):
        return fail(
            "redis",
            "it does not answer in time",
            "check for a firewall in between, or a Redis that is stopped or busy",
        )
    return fail(
        "redis",
        f"there is no connection: {error}",
        "start Redis, or correct host and port in the URL",
    )


def check_answer(client: ServerCommands) -> Finding:
    """Check that Redis answers, and accepts the login."""
    try:
        return answered(ping(client))
    except redis.RedisError as error:
        return explain(error)


def answered(seconds: float) -> Finding:
    """Return the finding about a Redis that answers."""
    return ok("redis", f"it answers after {in_words(seconds)}")


def check_version(client: ServerCommands, needs: str, oldest: int) -> Finding:
    """Check that Redis is new enough.

    :param needs: What needs a certain version.
    :param oldest: The oldest major version that has it.
    """
    try:
        version = str(client.info("server")["redis_version"])
    except (redis.RedisError, KeyError):
        return warn(
            "redis version",
            "this user may not ask for it",
            f"do nothing if it is {oldest} or later; otherwise allow INFO",
        )
    return judge_version(version, needs, oldest)


def judge_version(version: str, needs: str, oldest: int) -> Finding:
    """Return the finding about a version."""
    major = version.partition(".")[0]
    if needs and major.isdecimal() and int(major) < oldest:
        return fail("redis version", version, f"{needs} needs Redis {oldest} or later")
    return ok("redis version", version)


def find_room(client: ServerCommands) -> Room | None:
    """Return how many connections Redis has, or `None` if it does not say."""
    try:
        known = client.info("clients")
        return Room(int(known["connected_clients"]), int(known["maxclients"]))
    except (redis.RedisError, KeyError):
        # Redis before 7.0 does not say.
        return None


def judge_room(room: Room, reading: int, publishing: int | None) -> Finding:
    """Return the finding about the room for the connections of another process.

    :param reading: How many connections a process has for subscriptions and logs.
    :param publishing: How many it may use for publishing; `None` for any number.
    """
    least = reading + 1
    needed = least if publishing is None else reading + publishing
    limit = "at least" if publishing is None else "up to"
    found = f"{room.used} of {room.most} are in use; a process of the app uses {limit} {needed}"
    if room.left < least:
        return fail("redis connections", found, _MORE_CLIENTS)
    if room.left < needed:
        return warn(
            "redis connections",
            found,
            f"add ?max_connections={room.left - reading} or less to the URL, or {_MORE_CLIENTS}",
        )
    if room.left < room.most // 5:
        return warn("redis connections", found, _MORE_CLIENTS)
    return ok("redis connections", found)


def check_memory(client: ServerCommands) -> Finding:
    """Check whether Redis evicts histories when it is full."""
    try:
        known = client.info("memory")
        limit, policy = int(known["maxmemory"]), str(known["maxmemory_policy"])
    except (redis.RedisError, KeyError):
        return warn("redis memory", "this user may not ask for the limit", "allow INFO")
    if not limit:
        return ok("redis memory", "there is no limit, so no history is evicted")
    if policy == "noeviction":
        return ok("redis memory", "no history is evicted; at the limit, publishing raises an error")
    return warn(
        "redis memory",
        f"at its limit Redis evicts histories too ({policy}), and clients get sse.reset",
        "set maxmemory-policy to noeviction, or use a Redis that is not a cache",
    )


def arrivals(pubsub: PubSub, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield what arrives, until the time is over."""
    deadline = monotonic() + seconds
    while (left := deadline - monotonic()) > 0:
        message = pubsub.get_message(timeout=left)
        if message is not None:
            yield message


def wait_for(pubsub: PubSub, wanted: Callable[[dict[str, Any]], bool], patience: float) -> None:
    """Wait for a message.

    :raises redis.TimeoutError: if it does not arrive in time.
    """
    if not any(map(wanted, arrivals(pubsub, patience))):
        raise redis.TimeoutError(f"nothing arrived within {patience:g} s")
