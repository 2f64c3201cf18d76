"""The pages of a log, as the hub makes them of the events in memory."""

from flask_sse._log.page import first_page
from flask_sse._log.position import PAGE_BYTES
from tests.support.log import Log


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
