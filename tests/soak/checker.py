"""Checks what a client has received against what has been in the logs.

A record of a client is right if, from its first `sse.open` on,

- each event that it has received is the one that came right after its place in a log: there is
  no gap, nothing comes twice, and nothing is out of order;
- it has left its place for another one only by an `sse.reset`, and there was a reason for that:
  the log of the new place does not contain the old one, or did not reach back to it any more;
- each stream that it has resumed begins at its place, or says that it does not, and then the
  next event is an `sse.reset`;
- at last it is at the end of the log.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from tests.soak.events import FOREIGN, KEPT, text_of
from tests.soak.truth import Place, Truth
from tests.support.parser import Event

CONNECTED: Final = "(connected)"
"""The type of what a record has for each connection; its id is the one that was sent."""
BROKEN: Final = "(broken)"
"""The type of what a record has for a response that is no event stream."""


class Kind(StrEnum):
    """What may be wrong with a record."""

    GAP = "silent gaps"
    TWICE = "duplicates"
    ORDER = "events out of order"
    UNKNOWN = "events that no log has had"
    ALTERED = "events with another text"
    OPENING = "streams that begin wrongly"
    RESET = "resets without a reason"
    BROKEN = "responses that are no event stream"
    UNFINISHED = "clients that have not come to the end"


class Finding(NamedTuple):
    """Something that is wrong with a record."""

    kind: Kind
    text: str


class Record(NamedTuple):
    """What a client of a channel has received."""

    channel: str
    events: Sequence[Event]


class Checker:
    """Checks a record.

    :param end: The end of the log.
    """

    def __init__(self, truth: Truth, record: Record, end: Place) -> None:
        self.counts: Counter[str] = Counter()
        """How many events of each type the record has, and ``resumed`` streams."""
        self._truth = truth
        self._record = record
        self._end = end
        self._place: Place | None = None
        self._must_be_reset = False

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong."""
        for index, event in enumerate(self._record.events):
            self.counts[event.type] += 1
            match event.type:
                case "(connected)":
                    self._must_be_reset = False
                case "(broken)":
                    yield Finding(Kind.BROKEN, event.data)
                case "sse.open":
                    yield from self._open(event)
                case "sse.reset":
                    yield from self._reset(event)
                case "message":
                    yield from self._message(event, index)
                case _:
                    if event.type != FOREIGN:
                        yield Finding(Kind.UNKNOWN, str(event))
        if self._place != self._end:
            yield Finding(Kind.UNFINISHED, f"{self._place} is not the end, {self._end}")

    def _open(self, event: Event) -> Iterator[Finding]:
        recovered = json.loads(event.data)["recovered"]
        place = Place.parse(event.id)
        if self._place is None:
            self._place = place
            if recovered:
                yield Finding(Kind.OPENING, f"at {place}, of which the client did not know")
            return
        if place != self._place:
            yield Finding(Kind.OPENING, f"at {place} in place of {self._place}")
        self._must_be_reset = not recovered
        self.counts["resumed"] += recovered

    def _reset(self, event: Event) -> Iterator[Finding]:
        place, old = Place.parse(event.id), self._place
        self._must_be_reset = False
        self._place = place
        is_trimmed = old is not None and old.offset < place.offset - KEPT[self._record.channel]
        if old is None or (self._truth.leads(old, place) and not is_trimmed):
            yield Finding(Kind.RESET, f"from {old} to {place}: {event.data}")

    def _message(self, event: Event, index: int) -> Iterator[Finding]:
        place, old = Place.parse(event.id), self._place
        entry = self._truth.entries.get(place)
        self._place = place
        if entry is None:
            yield Finding(Kind.UNKNOWN, f"{place}: {event.data[:40]}")
            return
        if entry.number.channel != self._record.channel or event.data != text_of(entry.number):
            yield Finding(Kind.ALTERED, f"{entry.number}: {event.data[:40]}")
        if self._must_be_reset:
            self._must_be_reset = False
            yield Finding(Kind.OPENING, f"{entry.number} comes before the reset")
        if entry.previous == old:
            return
        text = f"{entry.number} at {place} after {old}"
        earlier = self._record.events[:index]
        if any(other.type == "message" and other.id == event.id for other in earlier):
            yield Finding(Kind.TWICE, text)
        elif old is not None and self._truth.leads(place, old):
            yield Finding(Kind.ORDER, text)
        else:
            yield Finding(Kind.GAP, text)
