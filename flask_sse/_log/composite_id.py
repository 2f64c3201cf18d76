"""The ids of events in streams with several channels: where each logged channel is.

A client keeps only the id of its last event. So each id names all channels with history::

    id    = salt 1*("-" entry)
    entry = key [offset check]

The key of a channel is 5 characters of a hash of the salt and the channel's name. The salt is a
number, nearly always 1. If two channels of the stream have the same key, the next number is tried.
The offset has 0 to 7 characters, and the check has 7 (see :class:`Mark`). An entry without them
says that the client has seen the channel's end. All characters are allowed in a header and in a
query without quoting.

Fifty channels with a million events each take 851 characters; the longest id has 1,002. Somebody
could search for names that share a key, but to find fifty that leave no salt of two digits is out
of reach.

Pure; nothing blocks.
"""

import hashlib
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import Final

from flask_sse._log.position import (
    CHECK_CHARACTERS,
    OTHER_DIGITS,
    UNKNOWN,
    Cursor,
    Mark,
    Position,
    is_end,
)

MOST_CHANNELS: Final = 50
"""How many channels an id can name."""

_KEY_CHARACTERS: Final = 5
_OFFSET_CHARACTERS: Final = 7
_LAST_OFFSET: Final = 64**_OFFSET_CHARACTERS - 1
_SALTS: Final = range(1, 100)
_MOST_ENTRIES: Final = 64
"""How many entries an id from a client may have; each of them costs time."""

_DIGIT: Final = "[A-Za-z0-9._]"
_LENGTHS: Final = f"{CHECK_CHARACTERS},{CHECK_CHARACTERS + _OFFSET_CHARACTERS}"
_ENTRY: Final = f"-{_DIGIT}{{{_KEY_CHARACTERS}}}(?:{_DIGIT}{{{_LENGTHS}}})?"
_ID: Final = re.compile(f"[1-9][0-9]?(?:{_ENTRY}){{1,{_MOST_ENTRIES}}}")


class Ended(Enum):
    """Stands for the position of a client that has seen a channel's end."""

    ENDED = "ended"


Marks = Sequence[Cursor | Ended | None]
"""Where a client is in each channel; `None` if the channel is new to it."""


class Encoder:
    """Makes the ids of streams with the same channels.

    :param names: The names of the channels with history; their order is the order of the entries.
    :raises ValueError: if there are more than 50, or one of them is there twice.

    >>> encoder = Encoder([b"news", b"user.7"])
    >>> news = encoder.entry(0, Position("1f0c0a3b5d7e9f24x0", 1000000, "5d41402abc"))
    >>> encoder.join([news, encoder.keys[1]])
    b'1-_PfnKD0JAzxtyJ6O-94lyd'
    """

    __slots__ = ("keys", "salt")

    def __init__(self, names: Sequence[bytes]) -> None:
        check_number(names)
        for salt in map(str, _SALTS):
            keys = [_key(salt, name) for name in names]
            if len({*keys}) == len(keys):
                break
        else:
            raise ValueError(f"each channel must be named once, not as in {names!r}")
        self.salt: Final = salt.encode()
        """What each id begins with."""
        self.keys: Final = [key.encode() for key in keys]
        """The keys of the channels; a key alone is the entry of one that has ended."""

    def entry(self, index: int, cursor: Cursor) -> bytes:
        """Return the entry of a channel whose client is at a cursor."""
        return self.keys[index] + value(cursor)

    def join(self, entries: Sequence[bytes]) -> bytes:
        """Return an id of at least one entry."""
        return b"-".join((self.salt, *entries))


def check_number(names: Sequence[bytes]) -> None:
    """Make sure that an id can name all channels.

    :raises ValueError: if there are more than 50.
    """
    if len(names) > MOST_CHANNELS:
        raise ValueError(
            f"a stream can have at most {MOST_CHANNELS} channels with history, not "
            f"{len(names)}; publish to fewer channels, or open several streams"
        )


def parse(text: str, names: Sequence[bytes]) -> Marks | None:
    """Return where a client is that sends an id, in each of a stream's channels with history.

    The id may be from a stream with other channels.

    :param names: The names of the channels, without duplicates.
    :return: an item for each name, or `None` if the id is from no such stream. An item is `None`
        if the channel is new to the client, and :data:`UNKNOWN` if the id does not tell two of
        the channels apart. If the stream has one channel, the id may also be a position, or that
        of the channel's end.
    """
    if "-" not in text:
        position = Position.parse(text)
        if position is None or len(names) != 1:
            return None
        return (Ended.ENDED if is_end(text) else position,)
    found = _split(text)
    if found is None:
        return None
    salt, values = found
    keys = [_key(salt, name) for name in names]
    uses = Counter(keys)
    return tuple([_parse_if_unique(values.get(key), is_unique=uses[key] == 1) for key in keys])


def _split(text: str) -> tuple[str, dict[str, str]] | None:
    """Return the salt of an id, and what follows each key; `None` if it is no such id."""
    if _ID.fullmatch(text) is None:
        return None
    salt, *entries = text.split("-")
    values = {entry[:_KEY_CHARACTERS]: entry[_KEY_CHARACTERS:] for entry in entries}
    return (salt, values) if len(values) == len(entries) else None


@lru_cache(maxsize=1024)
def _key(salt: str, name: bytes) -> str:
    digest = hashlib.sha1(salt.encode() + name, usedforsecurity=False).digest()
    return b64encode(digest, OTHER_DIGITS)[:_KEY_CHARACTERS].decode()


@lru_cache(maxsize=1024)
def value(cursor: Cursor) -> bytes:
    """Return what follows the key in an entry, whatever the other channels of the stream are."""
    mark = cursor if isinstance(cursor, Mark) else Mark.of(cursor)
    # At 1,000 events a second, a log has more than that after 139 years. The check is then not
    # that of the offset, so clients are told that they may have missed events.
    offset = min(mark.offset, _LAST_OFFSET)
    digits = b64encode(offset.to_bytes(6), OTHER_DIGITS).lstrip(b"A")
    return digits + mark.check.encode()


@lru_cache(maxsize=1024)
def parse_entry(entry: bytes) -> Cursor | Ended:
    """Return where a client is in one channel, from an entry that :class:`Encoder` has made."""
    return _parse_value(entry[_KEY_CHARACTERS:].decode())


def _parse_if_unique(value: str | None, *, is_unique: bool) -> Cursor | Ended | None:
    if value is None:
        return None
    return _parse_value(value) if is_unique else UNKNOWN


def _parse_value(value: str) -> Cursor | Ended:
    if not value:
        return Ended.ENDED
    digits, check = value[:-CHECK_CHARACTERS], value[-CHECK_CHARACTERS:]
    return Mark(int.from_bytes(b64decode(digits.rjust(8, "A"), OTHER_DIGITS)), check)
