"""What Redis has had in its logs, after its own append-only files."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

from tests.soak.events import Number

_ENTRY: Final = re.compile(
    rb'\{"data": "([a-z]+) ([0-9]+) x*", '
    rb'"id": "([0-9a-f]{16}x[0-9]+)\.([0-9]+)\.([0-9a-f]+)\.([0-9a-f]+)"\}'
)


class Place(NamedTuple):
    """A place in a log, as an id names it: right after an event, or before the first."""

    epoch: str
    offset: int
    nonce: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an id that a client has received."""
        epoch, offset, nonce = text.split(".")
        return cls(epoch, int(offset), nonce)


class Entry(NamedTuple):
    """An event of a log."""

    number: Number
    previous: Place


class Truth:
    """All events that have ever been in a log, each with the one before it.

    They are a tree for each epoch: when Redis goes back to an older state, the log has
    another branch from there on.
    """

    def __init__(self) -> None:
        self.entries: dict[Place, Entry] = {}
        self._leads: dict[tuple[Place, Place], bool] = {}

    def read(self, folder: Path) -> None:
        """Add what the files of a Redis have."""
        for file in folder.rglob("*"):
            if file.is_file():
                self.add(file.read_bytes())

    def add(self, text: bytes) -> None:
        """Add the events that a file names."""
        for channel, value, epoch, offset, nonce, previous in _ENTRY.findall(text):
            number = Number(channel.decode(), int(value))
            before = Place(epoch.decode(), int(offset) - 1, previous.decode())
            place = Place(before.epoch, int(offset), nonce.decode())
            self.entries[place] = Entry(number, before)

    def back_from(self, place: Place) -> Iterator[Place]:
        """Yield a place and all those before it, up to the beginning of the log."""
        yield place
        while (entry := self.entries.get(place)) is not None:
            place = entry.previous
            yield place

    def leads(self, start: Place, end: Place) -> bool:
        """Whether *end* is *start*, or comes after it in one and the same log."""
        found = self._leads.get((start, end))
        if found is None:
            places = self.back_from(end) if start.epoch == end.epoch else ()
            found = any(place == start for place in places if place.offset <= start.offset)
            self._leads[start, end] = found
        return found

    def faults(self, acknowledged: Collection[Number]) -> Iterator[str]:
        """Yield what is wrong with the logs, given the events whose `publish` has returned."""
        places: defaultdict[Number, list[Place]] = defaultdict(list)
        for place, entry in self.entries.items():
            places[entry.number].append(place)
        for number in acknowledged:
            if number not in places:
                yield f"{number} has been published, and is in no log"
        for number, some in places.items():
            for place in some:
                if any(other != place and self.leads(other, place) for other in some):
                    yield f"{number} is in one log twice"
        yield from self._unordered({*acknowledged})

    def _unordered(self, acknowledged: Collection[Number]) -> Iterator[str]:
        newest: dict[Place, int] = {}
        for place in sorted(self.entries, key=lambda place: place.offset):
            number, previous = self.entries[place]
            before = newest.get(previous, -1)
            if number in acknowledged and number.value <= before:
                yield f"{number} comes after number {before}"
            newest[place] = max(before, number.value if number in acknowledged else -1)
