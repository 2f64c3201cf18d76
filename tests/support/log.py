"""A log as Redis has it, without Redis."""

import itertools
from collections.abc import Sequence

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

    def add(self, number: int = 1, data: str = "") -> list[Entry]:
        """Add events; return them."""
        return [self._add(data) for _ in range(number)]

    def page(self, after: int) -> Page:
        """Return a page as Redis does."""
        top = self.top.offset
        start = {OFFSET_AT_TOP: top, OFFSET_BEFORE_LAST: max(top - 1, 0)}.get(after, after)
        entries: list[Entry] = []
        size = 0
        for entry in self.entries:
            if entry.position.offset > start and size < self.page_bytes:
                entries.append(entry)
                size += len(entry.payload or b"")
        return Page(after, self.top, entries)

    def copy(self) -> "Log":
        """Return a snapshot."""
        log = Log(self.epoch, self.length)
        log.entries, log.top = self.entries[:], self.top
        return log

    def _add(self, data: str) -> Entry:
        previous = self.top
        self.top = Position(self.epoch, previous.offset + 1, f"{next(_nonces):x}")
        payload = (data or str(self.top)).encode()
        frame = b"data:%b\nid:%b\n\n" % (payload, str(self.top).encode())
        entry = Entry(self.top, previous.nonce, frame, payload)
        self.entries = [*self.entries, entry][-self.length :]
        return entry


def ids(entries: Sequence[Entry]) -> list[str]:
    """Return the ids of events."""
    return [str(entry.position) for entry in entries]
