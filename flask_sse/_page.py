"""A part of a log as Redis has sent it, and the search for the entries after a position."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from flask_sse._history import Entry, Position

TRIMMED: Final = "the log no longer goes back that far"

_NEW_EPOCH: Final = "the log is a different one, because Redis has lost it or the id is unknown"
_REWRITTEN: Final = "Redis has gone back in time, and the log has continued differently"
_AHEAD: Final = "Redis has gone back in time, and the log ends before this event"


class Page(NamedTuple):
    """A part of a log, and the newest position at that time."""

    after: int
    """The offset before the first entry."""
    top: Position
    entries: Sequence[Entry]

    def find(self, cursor: Position) -> "Sequence[Entry] | str | None":
        """Return the entries after a cursor.

        :return: the entries; a text that says why the cursor is invalid; or `None` if the page
            can't tell.
        """
        if cursor.epoch != self.top.epoch:
            return _NEW_EPOCH
        if cursor.offset > self.top.offset:
            return _AHEAD
        if cursor.offset == self.top.offset:
            return () if cursor == self.top else _REWRITTEN
        if cursor.offset < self.after:
            return None
        if not self.entries or cursor.offset + 1 < self.entries[0].position.offset:
            return TRIMMED
        return find_after(self.entries, cursor)


def find_after(entries: Sequence[Entry], cursor: Position) -> "Sequence[Entry] | str | None":
    """Return the entries after a cursor from consecutive ones, like :meth:`Page.find`."""
    index = cursor.offset + 1 - entries[0].position.offset
    if not 0 <= index < len(entries):
        return None
    return entries[index:] if entries[index].previous == cursor.nonce else _REWRITTEN
