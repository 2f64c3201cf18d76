"""The deadlines of streams: their order, which of several counts, and what is kept of old ones."""

import gc
import weakref
from collections.abc import Iterable
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from flask_sse._hub.deadlines import Deadline, Deadlines
from flask_sse._hub.subscriber import Subscriber

ALL: Final = 1 << 30


def streams(number: int) -> list[Subscriber]:
    """Return listeners."""
    return [Subscriber(limit=1) for _ in range(number)]


class Watched(Subscriber):
    """A listener that can tell when it is freed."""


def reasons(taken: Iterable[Deadline]) -> list[str | None]:
    """Return the reasons of deadlines, in order."""
    return [deadline.reason for deadline in taken]


def test_the_earliest_come_first() -> None:
    """Those of the same time come in the order in which they were added."""
    deadlines = Deadlines()
    for at, reason, stream in zip((3.0, 1.0, 2.0, 1.0), "dacb", streams(4), strict=True):
        deadlines.add(at, stream, reason)
    assert not deadlines.is_due(0.9)
    assert not deadlines.take(0.9, ALL)
    assert deadlines.is_due(1.0)
    assert reasons(deadlines.take(2.5, ALL)) == ["a", "b", "c"]
    assert not deadlines.is_due(2.5)
    assert reasons(deadlines.take(9.0, ALL)) == ["d"]
    assert len(deadlines) == 0


def test_only_some_at_once() -> None:
    """The others stay due."""
    deadlines = Deadlines()
    for reason, stream in zip("abc", streams(3), strict=True):
        deadlines.add(1.0, stream, reason)
    assert reasons(deadlines.take(1.0, 2)) == ["a", "b"]
    assert deadlines.is_due(1.0)
    assert reasons(deadlines.take(1.0, 2)) == ["c"]


def test_one_stream_with_several() -> None:
    """The earliest counts, whenever it was added, and the others have no effect."""
    deadlines = Deadlines()
    (stream,) = streams(1)
    deadlines.add(5.0, stream, "age")
    deadlines.add(9.0, stream, "later")
    deadlines.add(2.0, stream, "sooner")
    assert len(deadlines) == 1
    assert deadlines.take(10.0, ALL) == [Deadline(2.0, 1, stream, "sooner")]
    assert not deadlines.take(10.0, ALL)
    # A stream that has ended gets another one.
    deadlines.add(12.0, stream, None)
    assert reasons(deadlines.take(12.0, ALL)) == [None]


def test_streams_that_have_gone() -> None:
    """They have no deadline any more, and most of them can be freed."""
    deadlines = Deadlines()
    (stays,) = streams(1)
    deadlines.add(1.0, stays, "age")
    found: list[weakref.ref[Subscriber]] = []
    leaving: list[Watched] = []
    for _ in range(10):
        leaving = [Watched(limit=1) for _ in range(100)]
        for stream in leaving:
            deadlines.add(2.0, stream, "age")
            found.append(weakref.ref(stream))
        for stream in leaving:
            deadlines.discard(stream)
    leaving.clear()
    gc.collect()
    assert len(deadlines) == 1
    assert sum(one() is not None for one in found) < 100
    assert [one.client for one in deadlines.take(3.0, ALL)] == [stays]
    deadlines.discard(stays)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 20))), max_size=300),
    st.integers(0, 20),
    st.integers(1, 7),
)
def test_any_changes(changes: list[tuple[int, int | None]], now: int, most: int) -> None:
    """After any additions and removals, exactly the streams that are due come, in their order."""
    deadlines, known = Deadlines(), streams(6)
    expected: dict[Subscriber, int] = {}
    for number, at in changes:
        stream = known[number]
        if at is None:
            deadlines.discard(stream)
            expected.pop(stream, None)
        else:
            deadlines.add(at, stream, "age")
            expected[stream] = min(at, expected.get(stream, at))
    taken: list[Deadline] = []
    while some := deadlines.take(now, most):
        assert len(some) <= most
        taken += some
    assert {one.client: one.at for one in taken} == {
        stream: at for stream, at in expected.items() if at <= now
    }
    assert [one.at for one in taken] == sorted(one.at for one in taken)
    assert len(deadlines) == len(expected) - len(taken)
