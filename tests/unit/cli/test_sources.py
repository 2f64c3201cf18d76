"""`merge`: several blocking iterators as one."""

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from threading import Event
from typing import Final

import pytest

from flask_sse._cli.sources import merge
from tests.support.waiting import wait_until

_TICK: Final = 0.01
_PATIENCE: Final = 30.0


def test_all_sources() -> None:
    """It yields the items of all sources, and ends with the last of them."""
    merged = merge([[1, 2], [3]], _PATIENCE)
    assert sorted(item for item in merged if item is not None) == [1, 2, 3]


def test_tick() -> None:
    """While nothing arrives, it yields None."""
    may_end = Event()

    def silent() -> Iterator[int]:
        may_end.wait(_PATIENCE)
        yield 1

    merged = merge([silent()], _TICK)
    assert next(merged) is None
    may_end.set()
    assert [item for item in merged if item is not None] == [1]


def test_error() -> None:
    """It raises the error of a source."""

    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("broken")

    merged = merge([broken()], _PATIENCE)
    assert next(merged) == 1
    with pytest.raises(LookupError, match="broken"):
        next(merged)


@pytest.mark.parametrize("number", [1, 100])
def test_sources_that_are_faster(number: int) -> None:
    """A source waits until its items are taken, and ends if nobody takes them any longer."""
    taken = count()
    ended: list[None] = []

    def endless() -> Iterator[int]:
        try:
            yield from taken
        finally:
            ended.append(None)

    sources = [endless() for _ in range(number)]
    with closing(merge(sources, _PATIENCE)) as merged:
        assert next(merged) is not None
    sources.clear()
    wait_until(lambda: len(ended) == number, "the sources have ended", _PATIENCE)
    assert next(taken) < 1000
