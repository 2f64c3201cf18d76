"""The pages of a log, and the newest events in memory: what they say about a client."""

from collections.abc import Sequence
from typing import Final

import pytest

from flask_sse._log.page import TRIMMED, Ring, first_page
from flask_sse._log.position import ANY_EPOCH, PAGE_BYTES, Entry, Mark, Position
from tests.support.log import Log

TOP: Final = 10
FAR: Final = 1 << 42
"""An offset that no log reaches."""
NO_MATCH: Final = "Redis has lost the log or gone back in time, or the id is unknown"
ANOTHER_LOG: Final = "the log is a different one, because Redis has lost it or the id is unknown"
REWRITTEN: Final = "Redis has gone back in time, and the log has continued differently"
AHEAD: Final = "Redis has gone back in time, and the log ends before this event"


def the_log() -> tuple[Log, Sequence[Position]]:
    """Return a log, and its positions from the beginning on."""
    log = Log()
    start = log.top
    return log, [start, *[entry.position for entry in log.add(TOP)]]


@pytest.mark.parametrize("is_mark", [False, True], ids=["position", "mark"])
@pytest.mark.parametrize(
    ("after", "offset", "found"),
    [
        *[(0, 0, range(1, 11)), (0, 1, range(2, 11)), (0, 9, [10]), (0, 10, [])],
        *[(4, 0, None), (4, 3, None), (4, 4, range(5, 11)), (4, 5, range(6, 11)), (4, 10, [])],
        *[(9, 8, None), (9, 9, [10]), (9, 10, []), (10, 9, None), (10, 10, []), (20, 10, [])],
    ],
)
def test_a_page_that_reaches_the_end(
    is_mark: bool, after: int, offset: int, found: Sequence[int] | None
) -> None:
    """It has what comes after each cursor from its own offset on."""
    log, positions = the_log()
    cursor = Mark.of(positions[offset]) if is_mark else positions[offset]
    entries = log.page(after).find(cursor)
    assert (None if entries is None else offsets(entries)) == (found and [*found])


@pytest.mark.parametrize("offset", range(TOP + 1))
@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_mark_says_as_much_as_its_position(kept: int, offset: int) -> None:
    """Pages and the newest events give the same answer for both."""
    log, positions = the_log()
    log.entries = log.entries[TOP - kept :]
    cursor = positions[offset]
    mark = Mark.of(cursor)
    for after in range(-1, TOP + 2):
        for bytes_ in (1, 30, PAGE_BYTES):
            log.page_bytes = bytes_
            page = log.page(after)
            assert page.find(mark) == page.find(cursor)
    ring = ring_of(log.entries)
    assert ring.after(mark) == ring.after(cursor)
    is_known = offset == TOP or ring.after(cursor) is not None
    assert ring.locate(mark, log.top) == (cursor if is_known else mark)
    assert ring.locate(cursor, log.top) == cursor


@pytest.mark.parametrize(
    ("after", "offset", "found"),
    [
        *[(4, 0, None), (4, 3, None), (4, 4, NO_MATCH), (4, 9, NO_MATCH), (4, 10, NO_MATCH)],
        *[(4, 11, NO_MATCH), (4, FAR, NO_MATCH), (0, 0, NO_MATCH), (FAR, FAR, NO_MATCH)],
        *[(FAR, 10, NO_MATCH), (FAR, 9, None)],
    ],
)
@pytest.mark.parametrize("check", ["", "made-up", "\0", "\ud800", "1" * 100])
def test_a_mark_that_is_made_up(after: int, offset: int, found: str | None, check: str) -> None:
    """It matches nothing, and the page at its own offset shows that."""
    log, _ = the_log()
    mark = Mark(offset, check)
    assert log.page(after).find(mark) == found
    ring = ring_of(log.entries)
    assert ring.after(mark) is None
    assert ring.locate(mark, log.top) == mark


@pytest.mark.parametrize("offset", [0, 1, 4, 9, 10])
def test_a_mark_from_another_log(offset: int) -> None:
    """Even at its beginning, where the nonces of all logs are the same."""
    log, _ = the_log()
    cursor = Position("other", offset, log.entries[offset - 1].position.nonce if offset else "0")
    for after in range(offset + 1):
        page = log.page(after)
        assert page.find(Mark.of(cursor)) == NO_MATCH
        assert page.find(cursor) == ANOTHER_LOG
    ring = ring_of(log.entries)
    assert ring.after(Mark.of(cursor)) is None
    assert ring.after(cursor) is None
    assert ring.locate(Mark.of(cursor), log.top) == Mark.of(cursor)


@pytest.mark.parametrize(("offset", "reason"), [(4, REWRITTEN), (10, REWRITTEN), (11, AHEAD)])
def test_a_log_that_has_gone_back_in_time(offset: int, reason: str) -> None:
    """Another event has this offset, or none."""
    log, _ = the_log()
    cursor = Position(log.epoch, offset, "x")
    assert log.page(4).find(cursor) == reason
    assert log.page(4).find(Mark.of(cursor)) == NO_MATCH


def test_a_log_without_events() -> None:
    """All have expired, and only the end is known."""
    log, positions = the_log()
    log.entries = []
    for offset in range(TOP):
        assert log.page(offset).find(Mark.of(positions[offset])) == TRIMMED
    assert log.page(TOP).find(Mark.of(log.top)) == ()
    assert Ring(lambda: PAGE_BYTES).after(Mark.of(log.top)) is None
    assert Ring(lambda: PAGE_BYTES).locate(Mark.of(log.top), log.top) == log.top


def test_before_the_newest_event() -> None:
    """Clients that get the newest event first start there."""
    log, positions = the_log()
    assert ring_of(log.entries).before_last == positions[-2]
    assert ring_of(log.entries[:1]).before_last == positions[0]
    assert ring_of([]).before_last is None


def test_a_mark_depends_on_the_whole_position() -> None:
    """Another epoch, offset or nonce gives another one."""
    position = Position("0123456789abcdefx0", 5, "a1")
    mark = Mark.of(position)
    assert mark.matches(position)
    for other in (
        position._replace(epoch="0123456789abcdefx1"),
        position._replace(offset=6),
        position._replace(nonce="a2"),
        Position("0123456789abcdefx0.a", 5, "1"),
    ):
        assert not mark.matches(other)
        assert Mark.of(other) != mark
        assert not position.matches(other)
    assert Mark.of(position._replace(offset=6)).check == mark.check


def ring_of(entries: Sequence[Entry]) -> Ring:
    """Return the newest events, in memory."""
    ring = Ring(lambda: PAGE_BYTES)
    for entry in entries:
        ring.append(entry)
    return ring


def offsets(found: Sequence[Entry] | str) -> list[int]:
    """Return the offsets of what has been found."""
    assert not isinstance(found, str)
    return [entry.position.offset for entry in found]


def test_a_page_ends_with_the_entry_that_fills_it() -> None:
    """It is as large as a page from Redis, and has at least one entry."""
    entries = Log().add(5, "x" * (PAGE_BYTES // 2))
    assert first_page(entries, 5) == entries[:2]
    assert first_page(entries, 1) == entries[:1]
    large = Log().add(2, "x" * (2 * PAGE_BYTES))
    assert first_page(large, 2) == large[:1]


def test_a_page_of_small_entries() -> None:
    """It has no more of them than it may have."""
    entries = Log().add(5)
    assert first_page(entries, 9) == entries
    assert first_page(entries, 3) == entries[:3]
    assert first_page(entries, 0) == []


def test_the_oldest_entries() -> None:
    """A position without an epoch is before the oldest entry after an offset that is kept."""
    log = Log(length=5)
    entries = log.add(8)[3:]

    def find(after: int, offset: int) -> object:
        return log.page(after).find(Position(ANY_EPOCH, offset, ""))

    assert find(0, 0) == find(0, 3) == find(2, 2) == entries
    assert find(0, 4) == find(4, 4) == entries[1:]
    assert find(0, 7) == entries[4:]
    assert find(3, 2) is None
    log.page_bytes = 1
    assert find(0, 3) == entries[:1]
    assert find(0, 4) is None
    # A page that others have asked for may have no entries.
    assert find(8, 0) is None
    assert find(20, 0) is None
    log.entries = []
    assert find(0, 0) == ()
