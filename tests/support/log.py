"""A log as Redis has it, without Redis."""

import itertools
from collections.abc import Sequence

from flask_sse._log import ending
from flask_sse._log.page import Page
from flask_sse._log.position import OFFSET_AT_TOP, OFFSET_BEFORE_LAST, PAGE_BYTES, Entry, Position

_nonces = itertools.count(1)


class Log:
    """A log as Redis has it."""

    def __init__(self, epoch: str = "e", length: int = 1000) -> None:
        self.epoch = epoch
        self.length = length
        self.page_bytes = PAGE_BYTES
        self.entries: list[Entry] = []
        self.top = Position(epoch, 0, "0")
        self._ended = 0

    def add(self, number: int = 1, data: str = "") -> list[Entry]:
        """Add events; return them."""
        return [self._add(data) for _ in range(number)]

    @property
    def has_ended(self) -> bool:
        """Whether the newest event is an end."""
        return bool(self.entries) and self.entries[-1].is_end

    def end(self, name: bytes = b"x") -> Entry:
        """End the channel; return the event."""
        end = ending.entry(name, self._next())._replace(previous=self.top.nonce)
        end = end._replace(ends_after=self._ended)
        self._ended = end.position.offset
        return self._append(end, self.length + 1)

    def page(self, after: int) -> Page:
        """Return a page as Redis does."""
        top = self.top.offset
        newest = self.entries[-1] if self.entries else None
        ends_after = None if newest is None else newest.ends_after
        before_last = max(top - (1 if ends_after is None else 2), 0)
        start = {OFFSET_AT_TOP: top, OFFSET_BEFORE_LAST: before_last}.get(after, after)
        entries: list[Entry] = []
        size = 0
        for entry in self.entries:
            if entry.position.offset > start and size < self.page_bytes:
                entries.append(entry)
                size += len(entry.payload or b"")
        return Page(after, self.top, entries, ends_after)

    def copy(self) -> "Log":
        """Return a snapshot."""
        log = Log(self.epoch, self.length)
        log.entries, log.top, log._ended = self.entries[:], self.top, self._ended
        return log

    def _add(self, data: str) -> Entry:
        position = self._next()
        payload = (data or str(position)).encode()
        frame = b"data:%b\nid:%b\n\n" % (payload, str(position).encode())
        return self._append(Entry(position, self.top.nonce, frame, payload), self.length)

    def _next(self) -> Position:
        return Position(self.epoch, self.top.offset + 1, f"{next(_nonces):x}")

    def _append(self, entry: Entry, length: int) -> Entry:
        self.top = entry.position
        self.entries = [*self.entries, entry][-length:]
        return entry


def ids(entries: Sequence[Entry]) -> list[str]:
    """Return the ids of events."""
    return [str(entry.position) for entry in entries]
