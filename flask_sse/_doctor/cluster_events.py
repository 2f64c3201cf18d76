"""Checks of a Redis Cluster's events: each primary passes them on and, with history, keeps them.

They wait for the nodes, each with a timeout.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

import redis

from flask_sse._doctor.cluster_facts import (
    CHANNELS,
    by_node,
    channels_of,
    explain_refusal,
    missing_rule,
)
from flask_sse._doctor.examined import App
from flask_sse._doctor.finding import Finding, Level, attempt, fail, in_words, ok, warn
from flask_sse._doctor.presence_scripts import run_scripts
from flask_sse._doctor.primaries import Primaries
from flask_sse._doctor.publishers import WATCH, watch
from flask_sse._doctor.redis_node import PROBE, ServerCommands, wait_for
from flask_sse._log.position import OFFSET_AT_TOP
from flask_sse._redis import log_commands
from flask_sse._redis.log_commands import NewEntry
from flask_sse._redis.pubsub import LOST
from flask_sse._redis.url import Address

_EVENT: Final = NewEntry(b'{"data": "", "id": "', b'"}', 1, 60)


class Events:
    """The checks of a cluster's events."""

    def __init__(self, primaries: Primaries) -> None:
        self._primaries = primaries
        self.can_publish = False
        """Whether an event has been published to the channel of the checks."""

    def check_round_trips(self, app: App) -> Iterator[Finding]:
        """Publish an event on each primary, and wait for it."""
        subscribed: list[tuple[Address, Finding]] = []
        published: list[tuple[Address, Finding]] = []
        channels = channels_of(self._primaries.slots, _new_prefix(), app.channel)
        number = len(self._primaries.slots.primaries)
        for address in self._primaries.present:
            own = app._replace(channel=channels[address])
            is_probe = own != app and not app.is_new
            check = partial(self._check_round_trip, own, address, is_probe=is_probe)
            for finding in attempt("publish", check):
                findings = subscribed if finding.check == "subscribe" else published
                findings.append((address, finding))
                if own == app and finding[:2] == (Level.OK, "publish"):
                    self.can_publish = True
            if own != app:
                with contextlib.suppress(*LOST):
                    self.forget(own)
        yield from by_node(subscribed, number)
        yield from by_node(published, number)

    def check_history(self, app: App) -> Iterator[Finding]:
        """Keep an event on each primary, and read it."""
        prefix = _new_prefix()
        channels = channels_of(self._primaries.slots, prefix, f"{prefix}.0")

        def check(client: ServerCommands, address: Address) -> Finding:
            own = app._replace(channel=channels[address])
            return self._check_scripts(client, own, is_probe=not app.is_new)

        yield from self._primaries.on_each("history", check)

    def check_presence(self, app: App) -> Iterator[Finding]:
        """Let a client join and leave a channel on each primary."""
        prefix = _new_prefix()
        channels = channels_of(self._primaries.slots, prefix, f"{prefix}.0")

        def check(client: ServerCommands, address: Address) -> Finding:
            try:
                run_scripts(client, channels[address].encode())
            except redis.RedisError as error:
                return self._explain("presence", error, is_probe=not app.is_new)
            return ok("presence", "it lets a client join and leave")

        yield from self._primaries.on_each("presence", check)

    def check_publishers(self, app: App) -> Iterator[Finding]:
        """Watch for events that are published as on a single Redis."""
        # Every node passes them on to all others.
        client = self._primaries.at(self._primaries.present[0])
        seen = watch(client, app.provider, min(WATCH, self._primaries.patience))
        if isinstance(seen, Finding):
            # Nothing else in a cluster needs this permission.
            return
        if not seen:
            yield ok("publishers", "nobody publishes with PUBLISH, which reaches no streams here")
            return
        names = ", ".join(sorted({event.name for event in seen}))
        yield warn(
            "publishers",
            f"somebody publishes to {names} with PUBLISH, which reaches no streams in a cluster",
            "publish there with SPUBLISH, or with Flask-SSE and a redis+cluster:// URL",
        )

    def forget(self, app: App) -> None:
        """Delete what Redis keeps of the events to the channel of the checks."""
        owner = self._primaries.owner(app.encoded)
        if owner is not None and app.settings.retention(app.encoded) is not None:
            self._primaries.at(owner).delete(log_commands.key(app.encoded))

    def _check_round_trip(self, app: App, address: Address, *, is_probe: bool) -> Iterator[Finding]:
        patience = self._primaries.patience
        with contextlib.closing(self._primaries.at(address).pubsub()) as pubsub:
            try:
                pubsub.ssubscribe(app.encoded)
                wait_for(pubsub, lambda one: one["type"] == "ssubscribe", patience)
            except redis.RedisError as error:
                yield self._explain("subscribe", error, is_probe=is_probe)
                return
            yield ok("subscribe", "it has confirmed a subscription")
            token = secrets.token_hex(8)
            started = time.perf_counter()
            try:
                app.publish(app.channel, token)
            except redis.RedisError as error:
                yield self._explain("publish", error, is_probe=is_probe)
                return
            try:
                wait_for(
                    pubsub,
                    lambda one: one["type"] == "smessage" and token.encode() in bytes(one["data"]),
                    patience,
                )
            except redis.RedisError:
                yield fail(
                    "publish",
                    "an event was published but has not arrived",
                    "publish and subscribe in the same cluster; if slots are being moved, repeat "
                    "the checks",
                )
                return
            seconds = time.perf_counter() - started
            yield ok("publish", f"an event arrives after {in_words(seconds)}")

    def _check_scripts(self, client: ServerCommands, app: App, *, is_probe: bool) -> Finding:
        key = log_commands.key(app.encoded)
        arguments = log_commands.append_arguments(app.encoded, _EVENT, 0)
        read = log_commands.read_command(app.encoded, OFFSET_AT_TOP, 0)
        try:
            log_commands.append_once(client, key, *arguments, b"", b"SPUBLISH")
            log_commands.execute(client, *read)
            client.delete(key)
        except redis.RedisError as error:
            return self._explain("history", error, is_probe=is_probe)
        return ok("history", "it keeps an event and returns it")

    def _explain(self, check: str, error: redis.RedisError, *, is_probe: bool) -> Finding:
        """Return the finding about a command that a node has refused.

        :param is_probe: Whether it was about a new channel, although the user has named one.
        """
        if is_probe and missing_rule(error) == CHANNELS:
            return warn(
                check,
                "it can't be checked, since this user may not use a new channel",
                "repeat the checks with a --channel that this primary has",
            )
        return explain_refusal(check, error, self._primaries.nodes.options.get("username"))


def _new_prefix() -> str:
    return f"{PROBE}.{secrets.token_hex(8)}"
