"""What Redis does with the members of a channel: the scripts that change and read them.

Each channel has one key, in its own slot. ``leases.lua`` describes it. Pure; nothing blocks.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, cast

import redis

from flask_sse._redis.cluster.errors import explain_cluster
from flask_sse._redis.scripts import Call, Part, Script
from flask_sse._redis.slots import LONGEST, tag

_LEASES: Final = Script.in_file("leases.lua")
_MEMBERS: Final = Script.in_file("members.lua")
_ROW: Final = re.compile(rb"(\S+) (\d+) (\S+);")
IN_SCRIPTS: Final = "+time +hget +hgetall +hset +hdel +pexpire +del"
"""The rules that allow a user what the scripts do."""


class Change(NamedTuple):
    """A change to the streams that a client has in this process."""

    client: bytes
    streams: int
    is_news: bool
    """Whether it had none before, so that it may have joined the channel; without streams, whether
    it is announced that it has left even if Redis does not know it any more."""


class Lease(NamedTuple):
    """What a process tells Redis about a channel."""

    milliseconds: int
    """How long it is valid; 0 means that no members are left."""
    before: str
    """The revision before, or nothing if it does not matter."""
    after: str
    changes: Sequence[Change]


class Outcome(NamedTuple):
    """The answer to it."""

    state: str
    """What Redis knew of this process, as ``leases.lua`` describes it."""
    joined: Sequence[bytes]
    left: Sequence[bytes]
    next_end: float | None
    """In how many seconds the lease of another process runs out."""


class Streams(NamedTuple):
    """The streams of a client."""

    since: float
    """Seconds since the epoch at which the first of them began, on the clock of Redis."""
    number: int


@lru_cache(maxsize=1024)
def key(channel: bytes) -> bytes:
    """Return the key of a channel's members, which a cluster keeps on the node of the channel."""
    name = channel
    if len(channel) > LONGEST:
        name = hashlib.sha1(channel, usedforsecurity=False).hexdigest().encode()
    # The key of a log has the braces first.
    return b"flask-sse:presence:{%b}:%b" % (tag(channel), name)


def lease(channel: bytes, process: str, told: Lease) -> Call:
    """Return the call that changes and renews the lease of a process."""
    arguments: list[Part] = [process, told.milliseconds, told.before, told.after]
    for client, streams, is_news in told.changes:
        arguments += (client, streams, int(is_news))
    return Call(_LEASES, channel, key(channel), arguments)


def parse_outcome(reply: object) -> Outcome:
    """Parse the answer to a lease."""
    state, joined, left, soonest = cast("tuple[bytes, list[bytes], list[bytes], int]", reply)
    return Outcome(state.decode(), joined, left, soonest / 1000 if soonest >= 0 else None)


def members(channel: bytes) -> Call:
    """Return the call that reads the members of a channel."""
    return Call(_MEMBERS, channel, key(channel))


def parse_members(reply: object) -> dict[bytes, Streams]:
    """Parse the answer to that: the clients with streams in processes that are alive."""
    now, found = cast("tuple[int, list[bytes]]", reply)
    values = _pairs(found)
    rows: Iterable[tuple[bytes, bytes, bytes]] = _ROW.findall(values.pop(b"", b""))
    alive = {name for name, ends, revision in rows if int(ends) > now and revision != b"-"}
    streams: dict[bytes, Streams] = {}
    for client, value in values.items():
        parts = [one for one in _ROW.findall(value) if one[0] in alive]
        if parts:
            since = min(int(from_) for _, from_, _ in parts) / 1000
            streams[client] = Streams(since, sum(int(number) for _, _, number in parts))
    return streams


def clients_of(reply: object, process: str) -> set[bytes]:
    """Return the clients with streams in one process, from the same answer."""
    _, found = cast("tuple[int, list[bytes]]", reply)
    name = process.encode()
    return {
        client
        for client, value in _pairs(found).items()
        if client and any(one[0] == name for one in _ROW.findall(value))
    }


def explain(error: redis.ResponseError) -> redis.ResponseError:
    """Return an error that says what presence needs, for an error about one of its scripts."""
    of_cluster = explain_cluster(error)
    if of_cluster is not None:
        return of_cluster
    return type(error)(
        f"SSE_PRESENCE needs a Redis that runs scripts; if it limits what its users may do, run "
        f"ACL SETUSER <user> ~flask-sse:* +eval +evalsha {IN_SCRIPTS}; Redis says: {error}"
    )


def _pairs(found: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(found[::2], found[1::2], strict=True))
