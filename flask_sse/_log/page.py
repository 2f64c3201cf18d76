"""The newest entries of a log in memory, which are enough for most clients that resume.

Only the hub's owner uses it. Nothing blocks.
"""

from collections.abc import Callable, Sequence
from typing import Final

from flask_sse._history import Entry, Position
from flask_sse._page import Page, find_after

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
        """The position before the newest entry, if it is known."""
        if not self._entries:
            return None
        last = self._entries[-1]
        return Position(last.position.epoch, last.position.offset - 1, last.previous)

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
            first = self._entries[0]
            end = Position(first.position.epoch, first.position.offset - 1, first.previous)
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

    def after(self, cursor: Position) -> Sequence[Entry] | None:
        """Return the entries after a cursor; `None` if the ring can't tell."""
        if not self._entries or self._entries[0].position.epoch != cursor.epoch:
            return None
        found = find_after(self._entries, cursor)
        return None if isinstance(found, str) else found

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
