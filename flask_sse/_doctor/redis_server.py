"""Checks of the single Redis that an application is configured to use.

They wait for Redis, each with a timeout.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator
from functools import partial
from typing import Final, cast

import redis
from redis.connection import SSLConnection

from flask_sse._doctor.control_channel import check_control
from flask_sse._doctor.examined import App
from flask_sse._doctor.finding import Finding, Level, attempt, fail, in_words, ok, warn
from flask_sse._doctor.presence_scripts import run_scripts
from flask_sse._doctor.publishers import WATCH, watch
from flask_sse._doctor.redis_node import (
    PROBE,
    ServerCommands,
    check_answer,
    check_memory,
    check_version,
    find_room,
    judge_room,
    new_client,
    wait_for,
)
from flask_sse._redis import lease_commands, log_commands
from flask_sse._redis.log_commands import NewEntry
from flask_sse._redis.url import Address

_OLDEST_WITH_HISTORY: Final = 5


class Server:
    """A single Redis.

    :param given: A client for it.
    :param publishing: How many connections a process may use for publishing; `None` for any
        number.
    :param patience: Seconds to wait for each answer.
    """

    def __init__(self, given: redis.StrictRedis, publishing: int | None, patience: float) -> None:
        self._client = new_client(given, patience)
        self._own = cast("ServerCommands", self._client)
        self._publishing = publishing
        self._patience = patience
        self.can_publish = False
        """Whether an event has been published to the channel of the checks."""

    def examine(self, app: App) -> Iterator[Finding]:
        """Yield the findings about a Redis; stop if it does not answer."""
        for answered in attempt("redis", partial(check_answer, self._own)):
            yield answered
            if answered.level is not Level.OK:
                return
        needs = "SSE_HISTORY" if app.has_history else ""
        yield from attempt(
            "redis version", partial(check_version, self._own, needs, _OLDEST_WITH_HISTORY)
        )
        for mode in attempt("cluster", partial(self._check_mode, has_history=app.has_history)):
            yield mode
            if mode.level is Level.FAIL:
                return
        # One for the subscriptions, and one to read the logs.
        reading = 2 if app.has_history else 1
        yield from attempt("redis connections", partial(self._check_room, reading))
        for finding in attempt("publish", partial(self._check_round_trip, app)):
            self.can_publish = self.can_publish or finding[:2] == (Level.OK, "publish")
            yield finding
        if self.can_publish:
            control = partial(check_control, self._own, self._patience)
            yield from attempt("control channel", control)
        if app.settings.presence:
            yield from attempt("presence", self._check_presence)
        if app.has_history:
            yield from attempt("history", self._check_scripts)
            yield from attempt("redis memory", partial(check_memory, self._own))
            yield from attempt("publishers", partial(self._check_publishers, app))

    def count_listeners(self, channel: bytes) -> int | None:
        """Return how many processes are subscribed; `None` if Redis does not say."""
        try:
            [(_, number)] = self._own.pubsub_numsub(channel)
        except redis.RedisError:
            return None
        return int(number)

    def forget(self, app: App) -> None:
        """Delete what Redis keeps of the events of the checks."""
        if app.settings.retention(app.encoded) is not None:
            self._own.delete(log_commands.key(app.encoded))

    def close(self) -> None:
        """Close the connections."""
        # Closing the client would leave its pool open, which was given to it.
        self._client.connection_pool.disconnect()

    def _check_mode(self, *, has_history: bool) -> Iterator[Finding]:
        """Check that it is not part of a cluster."""
        try:
            is_cluster = bool(int(self._own.info("cluster")["cluster_enabled"]))
        except (redis.RedisError, KeyError):
            return
        if not is_cluster:
            return
        remedy = f"begin REDIS_URL with {_url_of_cluster(self._client)}; the rest stays as it is"
        if has_history:
            found = "this Redis is part of a cluster, which keeps most histories on other nodes"
            yield fail("cluster", found, remedy)
        else:
            found = "this Redis is part of a cluster, which copies each event to all of its nodes"
            yield warn("cluster", found, remedy)

    def _check_room(self, reading: int) -> Iterator[Finding]:
        room = find_room(self._own)
        if room is not None:
            yield judge_room(room, reading, self._publishing)

    def _check_round_trip(self, app: App) -> Iterator[Finding]:
        with contextlib.closing(self._own.pubsub()) as pubsub:
            try:
                pubsub.subscribe(app.encoded)
                wait_for(pubsub, lambda message: message["type"] == "subscribe", self._patience)
            except redis.RedisError as error:
                yield fail("subscribe", str(error), _allow("subscribe to", app.channel))
                return
            yield ok("subscribe", "Redis has confirmed a subscription")
            token = secrets.token_hex(8)
            started = time.perf_counter()
            try:
                app.publish(app.channel, token)
            except redis.RedisError as error:
                yield fail("publish", str(error), _allow("publish to", app.channel))
                return
            try:
                wait_for(
                    pubsub,
                    lambda message: token.encode() in bytes(message["data"]),
                    self._patience,
                )
            except redis.RedisError:
                yield fail(
                    "publish",
                    "an event was published but has not arrived",
                    "publish and subscribe on the same Redis, not on a replica or another shard",
                )
                return
            seconds = time.perf_counter() - started
            yield ok("publish", f"an event arrives after {in_words(seconds)}")

    def _check_scripts(self) -> Finding:
        channel = f"{PROBE}.{secrets.token_hex(8)}".encode()
        event = NewEntry(b'{"data": "", "id": "', b'"}', 1, 60)
        try:
            log_commands.append(self._client, channel, event)
            log_commands.newest_position(self._client, channel)
            self._own.delete(log_commands.key(channel))
        except redis.RedisError as error:
            remedy = "allow this user these commands, on keys of flask-sse:*"
            return fail("history", str(error), remedy)
        return ok("history", "Redis keeps an event and returns it")

    def _check_presence(self) -> Finding:
        try:
            run_scripts(self._client, f"{PROBE}.{secrets.token_hex(8)}".encode())
        except redis.RedisError as error:
            shown = (
                lease_commands.explain(error) if isinstance(error, redis.ResponseError) else error
            )
            remedy = "allow this user these commands, on keys of flask-sse:*"
            return fail("presence", str(shown), remedy)
        return ok("presence", "Redis lets a client join and leave")

    def _check_publishers(self, app: App) -> Finding:
        """Watch for events whose publisher has a different configuration."""
        seconds = min(WATCH, self._patience)
        seen = watch(self._own, app.provider, seconds)
        if isinstance(seen, Finding):
            return seen
        foreign, logged = set[str](), set[str]()
        for event in seen:
            has_history = app.settings.retention(event.channel) is not None
            if event.is_logged != has_history:
                (foreign if has_history else logged).add(event.name)
        if foreign:
            return warn(
                "publishers",
                f"somebody publishes without history to {', '.join(sorted(foreign))}",
                "give that process the same SSE_HISTORY, or make it publish to another channel",
            )
        if logged:
            return warn(
                "publishers",
                f"somebody publishes with history to {', '.join(sorted(logged))}, which has no "
                f"history here",
                "give all processes the same SSE_HISTORY",
            )
        found = f"{len(seen)} events in {seconds:g} s, all of which match SSE_HISTORY"
        return ok("publishers", found)


def _allow(verb: str, channel: str) -> str:
    return (
        f"allow the user in the URL to {verb} {channel}, for example with "
        f"ACL SETUSER and &*; if it may use only some channels, choose one with --channel"
    )


def _url_of_cluster(client: redis.StrictRedis) -> str:
    pool = client.connection_pool
    scheme = "rediss" if issubclass(pool.connection_class, SSLConnection) else "redis"
    known = pool.connection_kwargs
    if known.get("host") is None:
        return f"{scheme}+cluster://"
    return f"{scheme}+cluster://{Address(known['host'], int(known.get('port') or 6379))}"
