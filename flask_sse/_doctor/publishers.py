"""Watches the events that other processes publish with ``PUBLISH``.

It waits for a second at most, in the command's thread.
"""

import contextlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import redis
from flask.json.provider import JSONProvider

from flask_sse._doctor.finding import Finding, warn
from flask_sse._doctor.redis_node import ServerCommands, arrivals
from flask_sse._event.message import from_payload
from flask_sse._log.position import EventId

WATCH: Final = 1.0
"""Seconds for which to watch other publishers, if the patience allows that much."""


class Seen(NamedTuple):
    """An event of any publisher."""

    channel: bytes
    is_logged: bool
    """Whether it is from a log."""

    @property
    def name(self) -> str:
        """The channel's name, for people."""
        return self.channel.decode(errors="replace")


def watch(
    client: ServerCommands, provider: JSONProvider, seconds: float
) -> Sequence[Seen] | Finding:
    """Return the events that are published in some seconds, or why they can't be watched."""
    seen: list[Seen] = []
    with contextlib.closing(client.pubsub()) as pubsub:
        try:
            pubsub.psubscribe("*")
            for message in arrivals(pubsub, seconds):
                if message["type"] != "pmessage":
                    continue
                is_logged = _is_logged(bytes(message["data"]), provider)
                if is_logged is not None:
                    seen.append(Seen(bytes(message["channel"]), is_logged))
        except redis.RedisError as error:
            return warn("publishers", f"they can't be watched: {error}", "allow PSUBSCRIBE to *")
    return seen


def _is_logged(payload: bytes, provider: JSONProvider) -> bool | None:
    """Return whether an event is from a log, or `None` if the payload is not an event."""
    try:
        message = from_payload(payload, provider)
    except (ValueError, TypeError):
        return None
    return isinstance(message.id, str) and EventId.parse(message.id) is not None
