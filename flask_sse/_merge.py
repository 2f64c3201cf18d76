"""Merges several blocking iterators into one.

Each runs in its own daemon thread; the values arrive in the thread that iterates.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeVar

_Item = TypeVar("_Item")


class _Ended(NamedTuple):
    """The end of an iterator, with the error, if there was one."""

    error: Exception | None


def merge(
    sources: Mapping[str, Iterable[_Item]], tick: float
) -> Iterator[tuple[str, _Item] | None]:
    """Yield each item with the name of its source, until all sources have ended.

    :param tick: Seconds after which `None` is yielded if nothing has arrived.
    :raises Exception: any exception that a source raises.
    """
    arrived: SimpleQueue[tuple[str, _Item] | _Ended] = SimpleQueue()

    def drain(name: str, source: Iterable[_Item]) -> None:
        error = None
        try:
            for item in source:
                arrived.put((name, item))
        except Exception as raised:  # noqa: BLE001 - raised again in the thread that iterates
            error = raised
        arrived.put(_Ended(error))

    for name, source in sources.items():
        threading.Thread(target=drain, args=(name, source), daemon=True).start()
    left = len(sources)
    while left:
        try:
            item = arrived.get(timeout=tick)
        except Empty:
            yield None
            continue
        if not isinstance(item, _Ended):
            yield item
        elif item.error is not None:
            raise item.error
        else:
            left -= 1
