"""The log of a channel: positions in it, and what Redis does with it.

Only the scripts write to a log. Each channel has two keys with one hash tag: the log, which is
a stream whose entries have the ids ``1-0``, ``2-0`` and so on, and its metadata, a string
that outlives it. Only the functions that take a client block: they wait for Redis.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self, cast

import redis
from redis.exceptions import NoScriptError

OFFSET_AT_TOP: Final = -1
"""Asks for the newest position only."""
OFFSET_BEFORE_LAST: Final = -2
"""Asks for the newest entry."""
PAGE_BYTES: Final = 1 << 18
"""A page of the log ends with the entry that reaches this number of bytes."""

_UNUSED_FOR: Final = 600
"""Seconds for which Redis keeps the epoch of a channel that has no events yet."""

_POSITION: Final = re.compile(r"([0-9a-f]{16}x[0-9]+)\.([0-9]{1,14})\.([0-9a-f]{1,16})", re.ASCII)
_ID: Final = re.compile(rf"{_POSITION.pattern}\.([0-9a-f]{{1,16}})(\.large)?", re.ASCII)

# The metadata holds the epoch, the offset of the newest entry, and its nonce of ten digits. If
# the log is too short to find a repeated command in it, the earlier nonces follow, newest first.
# Then come the nonces that repeated commands have added: the first command may arrive after its
# repetition. The metadata outlives the log by a week, so that a client that reconnects later is
# told that it missed events. Each process reads events larger than 64 KiB from the log, once.
_APPEND: Final = """
local meta, log = KEYS[1], KEYS[2]
local nonce, is_repetition = string.sub(ARGV[2], 1, 10), ARGV[7]
local known = redis.call('GET', meta)
local epoch, top, nonces, repeated
if known then
  epoch, top, nonces, repeated = string.match(known, '^(%w+) (%d+) (%w*) ?(%w*)')
else
  epoch, top, nonces, repeated = ARGV[2], 0, '0', ''
  redis.call('DEL', log)
end
if is_repetition or repeated ~= '' then
  local some, found = is_repetition and nonces or repeated, false
  for i = 1, #some, 10 do
    if string.sub(some, i, i + 9) == nonce then found = true end
  end
  if is_repetition and not found then
    for _, entry in ipairs(redis.call('XREVRANGE', log, '+', '-', 'COUNT', 4096)) do
      if entry[2][2] == nonce then found = true end
    end
    repeated = nonce .. string.sub(repeated, 1, 310)
  end
  if found then return redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2] end
end
local previous = string.sub(nonces, 1, 10)
local offset = top + 1 .. ''
local id = epoch .. '.' .. offset .. '.' .. nonce .. '.' .. previous
local payload = ARGV[5] .. id .. ARGV[6]
redis.call('XADD', log, 'MAXLEN', ARGV[3], offset .. '-0',
  'nonce', nonce, 'previous', previous, 'payload', payload)
redis.call('EXPIRE', log, ARGV[4])
if tonumber(ARGV[3]) < 32 then nonce = nonce .. string.sub(nonces, 1, 310) end
if repeated ~= '' then nonce = nonce .. ' ' .. repeated end
redis.call('SET', meta, epoch .. ' ' .. offset .. ' ' .. nonce, 'EX', ARGV[4] + 604800)
if #payload > 65536 then
  payload = '{"data": null, "id": "' .. id .. '.large"}'
end
return redis.call('PUBLISH', ARGV[1], payload)
"""

READ_SCRIPT: Final = """
local meta, log = KEYS[1], KEYS[2]
local known = redis.call('GET', meta)
local epoch, top, nonce
if known then
  epoch, top, nonce = string.match(known, '^(%w+) (%d+) (%w*)')
  top, nonce = tonumber(top), string.sub(nonce, 1, 10)
  local left = redis.call('TTL', meta)
  if left >= 0 and left < tonumber(ARGV[4]) then
    redis.call('EXPIRE', meta, ARGV[4])
  end
else
  epoch, top, nonce = ARGV[1], 0, '0'
  redis.call('DEL', log)
  redis.call('SET', meta, epoch .. ' 0 0', 'EX', ARGV[4])
end
local after = tonumber(ARGV[2])
if after == -1 then after = top end
if after == -2 then after = math.max(top - 1, 0) end
local entries, size, limit = {}, 0, tonumber(ARGV[3])
while after < top and size < limit do
  local from = string.format('%.0f-0', after + 1)
  local some = redis.call('XRANGE', log, from, '+', 'COUNT', 32)
  for _, entry in ipairs(some) do
    entries[#entries + 1] = entry
    size = size + #(entry[2][6] or '')
    after = tonumber(string.match(entry[1], '^%d+'))
    if size >= limit then break end
  end
  if #some < 32 then break end
end
return {epoch, string.format('%.0f', top), nonce, entries}
"""

_APPEND_SHA: Final = hashlib.sha1(_APPEND.encode(), usedforsecurity=False).hexdigest()


class Position(NamedTuple):
    """A position in a log: right after the entry that it names."""

    epoch: str
    """Identifies the log and its database; a log that was lost gets a new epoch."""
    offset: int
    """The number of the entry, from 1 on without gaps; 0 is the log's beginning."""
    nonce: str
    """Chosen by the publisher. If Redis goes back in time, it repeats offsets but not nonces."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the position that a client sent, or `None` if it is not a position."""
        match = _POSITION.fullmatch(text)
        return None if match is None else cls(match[1], int(match[2]), match[3])

    @property
    def database(self) -> str:
        """The number of the database that has the log."""
        return self.epoch.rpartition("x")[2]

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}.{self.nonce}"


UNKNOWN: Final = Position("", 0, "")
"""Stands for an id that is not from any log; its client is told so."""


class EventId(NamedTuple):
    """The contents of a published event's id."""

    position: Position
    previous: str
    """The nonce of the entry before."""
    is_large: bool
    """Whether the event is only in the log."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the contents of an id, or `None` if the event is not from a log."""
        match = _ID.fullmatch(text)
        if match is None:
            return None
        position = Position(match[1], int(match[2]), match[3])
        return cls(position, match[4], match[5] is not None)


class Entry(NamedTuple):
    """An event of a log."""

    position: Position
    previous: str
    """The nonce of the entry before."""
    frame: bytes
    """The event as streams carry it; empty if it can't be decoded."""
    payload: bytes | None
    """The event as Redis carries it; `None` if it can't be decoded."""


class Stored(NamedTuple):
    """An entry as Redis has it."""

    position: Position
    previous: str
    payload: bytes


class Range(NamedTuple):
    """An answer from Redis: a part of a log, and the newest position."""

    top: Position
    entries: Sequence[Stored]


@lru_cache(maxsize=1024)
def keys(channel: bytes) -> tuple[bytes, bytes]:
    """Return the keys of a channel's metadata and log, which a cluster keeps on one node."""
    # A channel's name may contain braces or be empty, and would then not work as a hash tag.
    tag = hashlib.sha1(channel, usedforsecurity=False).hexdigest()
    return b"flask-sse:{%b}:meta" % tag.encode(), b"flask-sse:{%b}:log" % tag.encode()


def new_epoch(database: int) -> str:
    """Return a new epoch for a log; an event takes its nonce from the beginning of an epoch."""
    return f"{secrets.token_hex(8)}x{database}"


def read_command(channel: bytes, after: int, database: int) -> tuple[str | bytes | int, ...]:
    """Return the command that reads a page of a log, after an offset."""
    options = (new_epoch(database), after, PAGE_BYTES, _UNUSED_FOR)
    return ("EVAL", READ_SCRIPT, 2, *keys(channel), *options)


def parse_range(reply: object) -> Range:
    """Parse the answer to a read.

    Entries that something else has written are left out, and so are the entries after them.
    """
    epoch, top, nonce, raw = cast("tuple[bytes, bytes, bytes, list[Any]]", reply)
    name = epoch.decode()
    entries: list[Stored] = []
    for key, fields in raw:
        offset = int(key.partition(b"-")[0])
        if entries and offset != entries[-1].position.offset + 1:
            break
        found = dict(zip(fields[::2], fields[1::2], strict=True))
        position = Position(name, offset, found.get(b"nonce", b"").decode("ascii", "replace"))
        previous = found.get(b"previous", b"").decode("ascii", "replace")
        entries.append(Stored(position, previous, found.get(b"payload", b"")))
    return Range(Position(name, int(top), nonce.decode()), entries)


class Event(NamedTuple):
    """An event to be added to a log."""

    head: bytes
    """Its payload up to the id, which Redis chooses."""
    tail: bytes
    """The rest of the payload."""
    length: int
    """How many events of the channel are kept."""
    seconds: int
    """How long they are kept."""


def append(client: redis.Redis, channel: bytes, event: Event) -> int:
    """Add an event to a log and publish it.

    If the answer is lost, the same command is sent again. The nonce tells Redis whether the
    command has already been executed, even if the first one arrives later.

    :return: how many connections are subscribed to the channel.
    :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
    """
    epoch = new_epoch(database_of(client))
    arguments = (channel, epoch, event.length, event.seconds, event.head, event.tail)
    try:
        try:
            return append_once(client, keys(channel), *arguments)
        except (redis.ConnectionError, redis.TimeoutError):
            return append_once(client, keys(channel), *arguments, "again")
    except redis.ResponseError as error:
        raise explain(error) from error


def newest_position(client: redis.Redis, channel: bytes) -> Position:
    """Return the newest position in the log of a channel; a missing log is created.

    :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
    """
    _, script, number, *rest = read_command(channel, OFFSET_AT_TOP, database_of(client))
    try:
        reply: object = client.eval(str(script), int(number), *rest)
    except redis.ResponseError as error:
        raise explain(error) from error
    return parse_range(reply).top


def explain(error: redis.ResponseError) -> redis.ResponseError:
    """Return an error that names the setting, for an error about a command that is forbidden."""
    return type(error)(
        f"SSE_HISTORY needs a Redis that allows EVAL and EVALSHA, and inside scripts GET, SET, "
        f"XADD, XRANGE, XREVRANGE, EXPIRE, TTL, DEL, PUBLISH and PUBSUB, on keys that begin with "
        f"'flask-sse:'; Redis says: {error}"
    )


def is_forbidden(error: redis.RedisError) -> bool:
    """Whether Redis will refuse again."""
    text = str(error)
    signs = ("NOPERM", "permission", "unknown command", "Unknown Redis command", "WRONGTYPE")
    return any(sign in text for sign in (*signs, "can't run this command"))


def database_of(client: redis.Redis) -> int:
    """Return the number of a client's database."""
    return int(client.connection_pool.connection_kwargs.get("db") or 0)


def append_once(
    client: redis.Redis, names: tuple[bytes, bytes], *arguments: str | bytes | int
) -> int:
    """Run the script in Redis once.

    :param names: The keys of the channel.
    :param arguments: The script's arguments. An additional one marks a repeated command.
    """
    try:
        answer: object = client.evalsha(_APPEND_SHA, 2, *names, *arguments)
    except NoScriptError:
        answer = client.eval(_APPEND, 2, *names, *arguments)
    return int(cast("int", answer))
