"""What Redis does with the log of a channel: the scripts that add to it and read it.

Only the scripts write to a log. It has one key, in the channel's own slot: a stream whose entries
have the ids ``1-0``, ``2-0`` and so on, or a string if it has no events. Only the functions that
take a client block: they wait for Redis.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib import resources
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast

import redis
from redis.client import NEVER_DECODE
from redis.exceptions import NoScriptError

from flask_sse._log.position import OFFSET_AT_TOP, PAGE_BYTES, Position, Stored
from flask_sse._redis.cluster.errors import explain_cluster
from flask_sse._redis.slots import LONGEST, tag

_Result = TypeVar("_Result")

_UNUSED_FOR: Final = 600
"""Seconds for which Redis keeps the epoch of a channel that has no events yet."""


def _script(name: str) -> str:
    """Return a script as Redis gets it: with the part that all share, and without comments."""
    folder = resources.files(__package__ or "")
    text = "".join((folder / part).read_text() for part in ("log.lua", name))
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


_APPEND: Final = _script("append.lua")
READ_SCRIPT: Final = _script("read.lua")

# A client of the application may have another encoding for text.
_APPEND_SHA: Final = hashlib.sha1(_APPEND.encode(), usedforsecurity=False).hexdigest().encode()


class Range(NamedTuple):
    """An answer from Redis: a part of a log, and the newest position."""

    top: Position
    entries: Sequence[Stored]
    ends_after: int | None = None
    """If the newest entry is an end, the offset of the end before, or 0."""


@lru_cache(maxsize=1024)
def key(channel: bytes) -> bytes:
    """Return the key of a channel's log, which a cluster keeps on the node of the channel."""
    name = channel
    if len(channel) > LONGEST:
        name = hashlib.sha1(channel, usedforsecurity=False).hexdigest().encode()
    return b"flask-sse:{%b}:%b" % (tag(channel), name)


def new_epoch(database: int) -> str:
    """Return a new epoch for a log; an event takes its nonce from the beginning of an epoch."""
    return f"{secrets.token_hex(8)}x{database}"


def read_command(channel: bytes, after: int, database: int) -> tuple[str | bytes | int, ...]:
    """Return the command that reads a page of a log, after an offset."""
    options = (new_epoch(database), after, PAGE_BYTES, _UNUSED_FOR)
    return ("EVAL", READ_SCRIPT, 1, key(channel), *options)


def parse_range(reply: object) -> Range:
    """Parse the answer to a read.

    Entries that something else has written are left out, and so are the entries after them.
    """
    epoch, top, nonce, raw, ended = cast("tuple[bytes, bytes, bytes, list[Any], int]", reply)
    name = epoch.decode()
    entries: list[Stored] = []
    for entry, fields in raw:
        offset = int(entry.partition(b"-")[0])
        if entries and offset != entries[-1].position.offset + 1:
            break
        found = dict(zip(fields[::2], fields[1::2], strict=True))
        position = Position(name, offset, found.get(b"nonce", b"").decode("ascii", "replace"))
        previous = found.get(b"previous", b"").decode("ascii", "replace")
        entries.append(Stored(position, previous, found.get(b"payload", b"")))
    top_position = Position(name, int(top), nonce.decode())
    return Range(top_position, entries, None if ended < 0 else ended)


class NewEntry(NamedTuple):
    """An event to be added to a log, which may be the channel's end."""

    head: bytes
    """Its payload up to the id, which Redis chooses."""
    tail: bytes
    """The rest of the payload."""
    length: int
    """How many events of the channel are kept."""
    seconds: int
    """How long they are kept."""


class Executor(Protocol):
    """Executes commands: a client of redis-py, or an object that passes them on to one."""

    def execute_command(self, *command: Any, **options: Any) -> Any:
        """Execute a command and return its answer."""
        ...


def append_arguments(channel: bytes, event: NewEntry, database: int) -> tuple[bytes | int, ...]:
    """Return the arguments of the script that adds an event to a log, with a new nonce."""
    epoch = new_epoch(database).encode()
    return (channel, epoch, event.length, event.seconds, event.head, event.tail)


def append(client: redis.Redis, channel: bytes, event: NewEntry) -> int:
    """Add an event to a log and publish it.

    If the answer is lost, the same command is sent again. The nonce tells Redis whether the
    command has already been executed, even if the first one arrives later.

    :return: how many connections are subscribed to the channel.
    :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
    """
    arguments = append_arguments(channel, event, database_of(client))

    def run() -> int:
        try:
            return append_once(client, key(channel), *arguments)
        except (redis.ConnectionError, redis.TimeoutError):
            return append_once(client, key(channel), *arguments, b"again")

    return _on_primary(client, run)


def newest_position(client: redis.Redis, channel: bytes) -> Position:
    """Return the newest position in the log of a channel; a missing log is created.

    :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
    """
    command = read_command(channel, OFFSET_AT_TOP, database_of(client))
    return parse_range(_on_primary(client, partial(execute, client, *command))).top


def _on_primary(client: redis.Redis, run: Callable[[], _Result]) -> _Result:
    """Run a script; connect again and repeat it if Redis has become a replica."""
    try:
        try:
            return run()
        except redis.ResponseError as error:
            if not is_read_only(error):
                raise
            # Redis has done nothing. Its name may belong to another server by now.
            close_idle(client)
            return run()
    except redis.ResponseError as error:
        raise explain(error) from error


def close_idle(client: redis.Redis) -> None:
    """Close the connections of a client that are not in use."""
    untyped: Any = client
    if untyped.connection is not None:
        untyped.connection.disconnect()
    pool = untyped.connection_pool
    if hasattr(pool, "renew"):
        # It is a pool for publishing, which counts this.
        pool.renew()
        return
    try:
        pool.disconnect(inuse_connections=False)
    except TypeError:
        # In older versions of redis-py, a pool that blocks can only close all of them.
        pool.disconnect()


def execute(client: Executor, *command: str | bytes | int) -> object:
    """Execute a command, whose reply stays bytes even if the client decodes replies."""
    encoded = (part.encode() if isinstance(part, str) else part for part in command[1:])
    reply: object = client.execute_command(command[0], *encoded, **{NEVER_DECODE: True})
    return reply


def explain(error: redis.ResponseError) -> redis.ResponseError:
    """Return an error that names the reason, for an error about a script that can't run."""
    of_cluster = explain_cluster(error)
    if of_cluster is not None:
        return of_cluster
    if is_read_only(error):
        return redis.ReadOnlyError(
            f"this Redis is a replica, and SSE_HISTORY needs the primary, which keeps the events; "
            f"check where REDIS_URL leads, or wait until the failover is complete; Redis says: "
            f"{error}"
        )
    return explain_script(error)


def explain_script(error: redis.ResponseError) -> redis.ResponseError:
    """Return an error that says what scripts need, for an error about one."""
    return type(error)(
        f"SSE_HISTORY needs a Redis that allows EVAL and EVALSHA, and inside scripts TYPE, GET, "
        f"SET, XADD, XRANGE, XREVRANGE, EXPIRE, PTTL, DEL, PUBSUB and PUBLISH (in a cluster, "
        f"SPUBLISH), on keys that begin with 'flask-sse:'; Redis says: {error}"
    )


def is_read_only(error: redis.RedisError) -> bool:
    """Whether Redis has refused to write because it is a replica."""
    # Before Redis 7, the reason is inside the text of an error about the script.
    return isinstance(error, redis.ReadOnlyError) or "READONLY" in str(error)


def is_forbidden(error: redis.RedisError) -> bool:
    """Whether Redis will refuse again."""
    text = str(error)
    signs = ("NOPERM", "permission", "unknown command", "Unknown Redis command", "WRONGTYPE")
    return any(sign in text for sign in (*signs, "can't run this command"))


def database_of(client: redis.Redis) -> int:
    """Return the number of a client's database."""
    return int(client.connection_pool.connection_kwargs.get("db") or 0)


def append_once(client: Executor, name: bytes, *arguments: str | bytes | int) -> int:
    """Run the script in Redis once.

    :param name: The key of the channel.
    :param arguments: The script's arguments. An additional one marks a repeated command.
    """
    try:
        answer: int = client.execute_command("EVALSHA", _APPEND_SHA, 1, name, *arguments)
    except NoScriptError:
        answer = client.execute_command("EVAL", _APPEND.encode(), 1, name, *arguments)
    return int(answer)
