"""Parts of a log: as Redis has sent them, and the newest entries that are kept in memory.

What is kept is enough for most clients that resume. Only the hub's loop uses it. Nothing blocks.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from flask_sse._log.position import ANY_EPOCH, PAGE_BYTES, Cursor, Entry, Mark, Position

TRIMMED: Final = "the log no longer goes back that far"

_NEW_EPOCH: Final = "the log is a different one, because Redis has lost it or the id is unknown"
_REWRITTEN: Final = "Redis has gone back in time, and the log has continued differently"
_AHEAD: Final = "Redis has gone back in time, and the log ends before this event"
_NO_MATCH: Final = "Redis has lost the log or gone back in time, or the id is unknown"
"""A mark does not show which of these it is."""


class Page(NamedTuple):
    """A part of a log, and the newest position at that time."""

    after: int
    """The offset before the first entry."""
    top: Position
    entries: Sequence[Entry]
    ends_after: int | None = None
    """If the newest entry is an end, the offset of the end before, or 0."""

    def find(self, cursor: Cursor) -> "Sequence[Entry] | str | None":
        """Return the entries after a cursor.

        :return: the entries; a text that says why the cursor is invalid; or `None` if the page
            can't tell.
        """
        if isinstance(cursor, Position) and cursor.epoch == ANY_EPOCH:
            return self._find_oldest(cursor.offset)
        if isinstance(cursor, Position) and cursor.epoch != self.top.epoch:
            return _NEW_EPOCH
        if cursor.offset >= self.top.offset:
            return self._find_at_top(cursor)
        if cursor.offset < self.after:
            return None
        if not self.entries or cursor.offset + 1 < self.entries[0].position.offset:
            return TRIMMED
        return find_after(self.entries, cursor)

    def _find_oldest(self, after: int) -> Sequence[Entry] | None:
        if after < self.after:
            return None
        if not self.entries:
            return ()
        found = self.entries[max(0, after + 1 - self.entries[0].position.offset) :]
        return found or None

    def _find_at_top(self, cursor: Cursor) -> "Sequence[Entry] | str":
        if cursor.matches(self.top):
            return ()
        is_ahead = cursor.offset > self.top.offset and isinstance(cursor, Position)
        return _AHEAD if is_ahead else _reason(cursor)


def find_after(entries: Sequence[Entry], cursor: Cursor) -> "Sequence[Entry] | str | None":
    """Return the entries after a cursor from consecutive ones, like :meth:`Page.find`."""
    index = cursor.offset + 1 - entries[0].position.offset
    if not 0 <= index < len(entries):
        return None
    return entries[index:] if cursor.matches(entries[index].before) else _reason(cursor)


def _reason(cursor: Cursor) -> str:
    """Return why a cursor does not match the position in the log that has its offset."""
    return _NO_MATCH if isinstance(cursor, Mark) else _REWRITTEN


def first_page(entries: Sequence[Entry], most: int) -> Sequence[Entry]:
    """Return the first entries: as many as Redis would put on a page, and at most *most*."""
    size = 0
    for number, entry in enumerate(entries[:most], 1):
        size += len(entry.frame)
        if size >= PAGE_BYTES:
            return entries[:number]
    return entries[:most]


_COST_OF_AN_ENTRY: Final = 400
"""Bytes that an entry takes in addition to its frame and its payload."""


class Ring:
    """The newest entries of a log, as far as they are known and within a limit.

    :param room: Returns the limit in bytes; the newest entry is always kept.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._entries: list[Entry] = []
        self._size = 0

    @property
    def before_last(self) -> Position | None:
        """The position before the newest entry, if it is known; an end does not count."""
        newest = self._entries[-2:]
        if not newest:
            return None
        return newest[0 if newest[-1].is_end else -1].before

    def clear(self) -> None:
        """Forget all entries."""
        self._entries = []
        self._size = 0

    def begin(self, page: Page) -> None:
        """Replace all entries with those of a page, or with none if it lacks the newest entry."""
        self.clear()
        if page.entries and page.entries[-1].position == page.top:
            for entry in page.entries:
                self.append(entry)

    def append(self, entry: Entry) -> None:
        """Add the entry that follows the newest one."""
        self._entries.append(entry)
        self._size += _size(entry)
        self.shrink()

    def extend_left(self, entries: Sequence[Entry], end: Position | None) -> None:
        """Add older entries, if the ring begins right after them, as far as there is room.

        :param end: The position after the newest entry, which is where an empty ring begins.
        """
        if self._entries:
            end = self._entries[0].before
        # Some of these entries may be in the ring or after it.
        known = [index for index, entry in enumerate(entries) if entry.position == end]
        if not known:
            return
        entries = entries[: known[0] + 1]
        added: list[Entry] = []
        room = self._room()
        for entry in reversed(entries):
            if self._size + _size(entry) > room:
                break
            self._size += _size(entry)
            added.append(entry)
        self._entries[:0] = reversed(added)

    def knows(self, position: Position) -> bool:
        """Whether an entry is in the ring."""
        if not self._entries or self._entries[0].position.epoch != position.epoch:
            return False
        index = position.offset - self._entries[0].position.offset
        return 0 <= index < len(self._entries) and self._entries[index].position == position

    def after(self, cursor: Cursor) -> Sequence[Entry] | None:
        """Return the entries after a cursor; `None` if the ring can't tell."""
        found = find_after(self._entries, cursor) if self._entries else None
        return None if isinstance(found, str) else found

    def locate(self, cursor: Cursor, end: Position) -> Cursor:
        """Return the position that a cursor stands for, or the cursor if the ring can't tell.

        :param end: The position after the newest entry.
        """
        if isinstance(cursor, Position):
            return cursor
        if cursor.matches(end):
            return end
        found = self.after(cursor)
        return found[0].before if found else cursor

    def shrink(self) -> None:
        """Forget the oldest entries, if there is no room for all."""
        room = self._room()
        if self._size <= room:
            return
        # Remove a few more than necessary, so that this does not run for each entry.
        number = 0
        while self._size > room * 3 // 4 and number < len(self._entries) - 1:
            self._size -= _size(self._entries[number])
            number += 1
        del self._entries[:number]


def _size(entry: Entry) -> int:
    return len(entry.frame) + len(entry.payload or b"") + _COST_OF_AN_ENTRY
