"""Positions in the log of a channel, and its events.

Pure; nothing blocks.
"""

import hashlib
import re
from base64 import b64encode
from functools import lru_cache
from typing import Final, NamedTuple, Self

OFFSET_AT_TOP: Final = -1
"""Asks for the newest position only."""
OFFSET_BEFORE_LAST: Final = -2
"""Asks for the newest entry. If it is an end, the entry before is included."""
PAGE_BYTES: Final = 1 << 18
"""A page of the log ends with the entry that reaches this number of bytes."""
CHECK_CHARACTERS: Final = 7
"""The length of a mark's check."""
OTHER_DIGITS: Final = b"._"
"""What base 64 has in place of ``+`` and ``/``."""
END: Final = ".end"
"""What follows the position in the id of a channel's end."""

_POSITION: Final = re.compile(r"([0-9a-f]{16}x[0-9]+)\.([0-9]{1,14})\.([0-9a-f]{1,16})", re.ASCII)
_ID: Final = re.compile(rf"{_POSITION.pattern}\.([0-9a-f]{{1,16}})(\.large)?", re.ASCII)


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
        """Return the position that a client sent, or `None` if it is not a position.

        It may be the id of a channel's end, which :func:`is_end` recognizes.
        """
        match = _POSITION.fullmatch(text.removesuffix(END))
        return None if match is None else cls(match[1], int(match[2]), match[3])

    @property
    def database(self) -> str:
        """The number of the database that has the log."""
        return self.epoch.rpartition("x")[2]

    def matches(self, position: "Position") -> bool:
        """Whether a client with this cursor is at a position."""
        return self == position

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}.{self.nonce}"


UNKNOWN: Final = Position("", 0, "")
"""Stands for an id that is not from any log; its client is told so."""
ANY_EPOCH: Final = "any"
"""The epoch of a position that only has an offset, in whatever log there is. If the entry after it
is no longer kept, it is the position before the oldest one that is."""


def is_end(text: str) -> bool:
    """Whether the id that a client sent is that of a channel's end."""
    return text.endswith(END) and Position.parse(text) is not None


class Mark(NamedTuple):
    """A position as the id of a stream with several channels names it, which has to be short."""

    offset: int
    check: str
    """Depends on the epoch and the nonce: 42 bits of a hash. Any other position has the same one
    with a chance of 2e-13."""

    @classmethod
    def of(cls, position: Position) -> Self:
        """Return the mark of a position."""
        return cls(position.offset, _check(position.epoch, position.nonce))

    def matches(self, position: Position) -> bool:
        """Whether a client with this cursor is at a position."""
        return self.offset == position.offset and self == Mark.of(position)


Cursor = Position | Mark
"""Where a client is, as its last id says."""


@lru_cache(maxsize=1024)
def _check(epoch: str, nonce: str) -> str:
    digest = hashlib.sha1(f"{epoch}.{nonce}".encode(), usedforsecurity=False).digest()
    return b64encode(digest, OTHER_DIGITS)[:CHECK_CHARACTERS].decode()


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
    ends_after: int | None = None
    """If it is an end, the offset of the end before, or 0."""

    @property
    def before(self) -> Position:
        """The position before this event."""
        epoch, offset, _ = self.position
        return Position(epoch, offset - 1, self.previous)

    @property
    def is_end(self) -> bool:
        """Whether it ends the channel for all clients that get it."""
        return self.ends_after is not None


class Stored(NamedTuple):
    """An entry as Redis has it."""

    position: Position
    previous: str
    payload: bytes
