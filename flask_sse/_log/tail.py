"""The end of one log, as far as this process knows it.

It takes in what Redis has sent and answered, and returns what must be done. It never calls back.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from flask_sse._event import channel_name
from flask_sse._log.decoding import Event, Foreign
from flask_sse._log.page import TRIMMED, Page, Ring
from flask_sse._log.position import OFFSET_AT_TOP, OFFSET_BEFORE_LAST, Entry, Position

_log: Final = logging.getLogger("flask_sse")

HELD_BYTES: Final = 1 << 20
"""Bytes of events that may wait for an answer."""

_LEAST_BYTES: Final = 100
"""The size of an announcement of an event that is only in the log."""


class Phase(Enum):
    """What a tail is waiting for."""

    NEW = "new"
    """Nothing has been asked."""
    LOCATING = "locating"
    """Where does the log end?"""
    CONFIRMING = "confirming"
    """An event that was published before the first answer may arrive after it."""
    FOLLOWING = "following"
    """Nothing: each event follows the one before."""
    COMPARING = "comparing"
    """What comes after our position?"""


@dataclass(frozen=True, slots=True)
class Ask:
    """Send :meth:`Tail.question` to Redis, and pass the answer on."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin the streams of clients without a position."""

    start: Position
    entries: Sequence[Entry] = ()
    """The newest event, if clients get it first, and the channel's end, if that follows it."""
    ends_after: int | None = None
    """If the newest entry is an end, the offset of the end before, or 0."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send events to the clients that are live."""

    before: Position
    events: Sequence[Event]
    after: Position


@dataclass(frozen=True, slots=True)
class Restart:
    """Tell the clients that are live that they may have missed events."""

    reason: str
    before: Position
    start: Position
    entries: Sequence[Entry] = ()
    """The newest event, if clients get it first, and the channel's end, if that follows it."""
    ends_after: int | None = None
    """If the newest entry is an end, the offset of the end before, or 0."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Continue with the clients that are not live."""


Step = Ask | Begin | Deliver | Restart | Ready


class Tail:
    """The position of one log's end, its newest entries, and the events that must wait.

    ========== ============= ============== ================== ===================================
    phase      ``compare()`` ``arrived()``, ``arrived()``, not ``answered()``
                             next event     the next event
    ========== ============= ============== ================== ===================================
    NEW        LOCATING: Ask hold           hold               never
    LOCATING   again         hold           hold               CONFIRMING: Ask; if the newest event
                                                               is sent first, like CONFIRMING
    CONFIRMING again         hold           hold               Begin; then like COMPARING
    FOLLOWING  COMPARING:    Deliver        Deliver the events never
               Ask                          before; COMPARING:
                                            Ask; hold the rest
    COMPARING  again         hold           hold               Deliver or Restart; then, if it is
                                                               not at the top, or again: Ask;
                                                               else FOLLOWING: Deliver the held
                                                               events, Ready, or as above
    ========== ============= ============== ================== ===================================

    If too many events are held, the logged ones are dropped, since the log has them, and it is
    compared again; the others are delivered at once, if there is a position. After a question
    that has failed, :meth:`failed` asks it again in the same phase.

    :param room: Returns how many bytes of entries may be kept.
    :param sends_latest: Whether clients without a position get the newest event first.
    """

    __slots__ = (
        "_again",
        "_covered",
        "_held",
        "_held_size",
        "_located",
        "_name",
        "_sends_latest",
        "phase",
        "position",
        "ring",
    )

    def __init__(self, name: bytes, room: Callable[[], int], *, sends_latest: bool = False) -> None:
        self.phase = Phase.NEW
        self.position: Position | None = None
        """The last event that was delivered; `None` before the beginning."""
        self.ring: Final = Ring(room)
        """The newest entries, up to the position."""
        self._name = name
        self._sends_latest = sends_latest
        # The first answer, which says where the log ended.
        self._located: Page | None = None
        # Whether the answer to the question that has been asked may be too old.
        self._again = False
        self._held: list[Event] = []
        self._held_size = 0
        # How many of the held events arrived before the log was asked.
        self._covered = 0

    def __repr__(self) -> str:
        return f"<Tail {channel_name.for_log(self._name)} {self.phase.name} at {self.position}>"

    @property
    def is_following(self) -> bool:
        """Whether no answer is needed."""
        return self.phase is Phase.FOLLOWING

    def start(self, top: Position) -> Position:
        """Return where a stream starts that continues from *top* on, which Redis has named.

        If clients get the newest event first, that is before this event.
        """
        newest = self.ring.before_last if self._sends_latest and top == self.position else None
        return newest or top

    def compare(self) -> list[Step]:
        """Make sure that nothing was missed."""
        if self.phase is Phase.NEW:
            return self._ask(Phase.LOCATING, "there is a listener")
        if self.phase is Phase.FOLLOWING:
            return self._ask(Phase.COMPARING, "events may have been missed")
        self._again = True
        return []

    def question(self) -> int:
        """Return the offset after which to read the log, right before it is read."""
        self._covered = len(self._held)
        if self._sends_latest:
            # The newest event is also needed after a reset, and earlier events are not kept.
            return OFFSET_BEFORE_LAST
        return OFFSET_AT_TOP if self.position is None else self.position.offset

    def failed(self) -> list[Step]:
        """Ask again, because Redis has not answered."""
        return [Ask()]

    def arrived(self, events: Sequence[Event]) -> list[Step]:
        """Take in events from the subscription, in order."""
        if self.phase is Phase.FOLLOWING:
            return self._follow(events, 0)
        return self._hold(events)

    def answered(self, page: Page) -> list[Step]:
        """Take in the answer to :meth:`question`."""
        assert self.phase not in (Phase.NEW, Phase.FOLLOWING)
        again, self._again = self._again, False
        if self.phase is Phase.LOCATING and not self._sends_latest:
            # Redis may have sent this answer before an event that it published earlier. When
            # it answers again, it has sent that event too.
            self._located = page
            return self._ask(Phase.CONFIRMING, "the log has been located")
        steps = self._begin(page) if self.position is None else self._continue(self.position, page)
        if self._sends_latest and not page.entries:
            # It has expired in Redis.
            self.ring.clear()
        if again or self.position != page.top:
            reason = "the answer may be too old" if again else "the log continues"
            return [*steps, *self._ask(Phase.COMPARING, reason)]
        return [*steps, *self._release()]

    def _begin(self, page: Page) -> list[Step]:
        if self._sends_latest:
            # The newest event is always sent, and only that event is kept.
            self.position = page.top
            self.ring.begin(page)
            start = self.start(page.top)
            return [Begin(start, self._after(start), page.ends_after)]
        located = self._located or page
        self.position = self._before_held(located.top) or located.top
        ends_after = located.ends_after if self.position == located.top else None
        return [Begin(self.position, ends_after=ends_after)]

    def _before_held(self, top: Position) -> Position | None:
        """Return the position before the first event that arrived after the subscription.

        `publish` has counted this process for these, so clients that start at the top get them.
        """
        for event in self._held:
            if not isinstance(event, Foreign):
                epoch, offset, _ = event.position
                is_known = epoch == top.epoch and offset <= top.offset
                return Position(epoch, offset - 1, event.previous) if is_known else None
        return None

    def _continue(self, before: Position, page: Page) -> list[Step]:
        found = page.find(before)
        if found is None or isinstance(found, str):
            self.position = page.top
            self.ring.begin(page)
            start = self.start(page.top)
            entries = self._after(start)
            return [Restart(found or TRIMMED, before, start, entries, page.ends_after)]
        for entry in found:
            self._accept(entry)
        return self._deliver(before, found)

    def _release(self) -> list[Step]:
        self._enter(Phase.FOLLOWING, "this is where the log ends")
        # The room may have become smaller.
        self.ring.shrink()
        held, self._held, self._held_size = self._held, [], 0
        steps = self._follow(held, self._covered)
        return [*steps, Ready()] if self.is_following else steps

    def _follow(self, events: Sequence[Event], covered: int) -> list[Step]:
        """Deliver events, of which the first *covered* arrived before the log was asked."""
        before = self.position
        assert before is not None
        position = before
        sound: list[Event] = []
        for number, event in enumerate(events, 1):
            if isinstance(event, Foreign):
                sound.append(event)
            elif self.ring.knows(event.position):
                continue
            elif number <= covered and event.position.offset <= position.offset:
                # The log was asked after this: the event was sent, or was lost with its log.
                continue
            elif _is_next(event, position):
                self._accept(event)
                position = event.position
                sound.append(event)
            else:
                # There is a gap, another log, or an event that must be fetched: read the log.
                return [
                    *self._deliver(before, sound),
                    *self._ask(Phase.COMPARING, f"{event.position} is not the next event"),
                    *self._hold(events[number:]),
                ]
        return self._deliver(before, sound)

    def _accept(self, entry: Entry) -> None:
        self.position = entry.position
        self.ring.append(entry)

    def _deliver(self, before: Position, events: Sequence[Event]) -> list[Step]:
        return [Deliver(before, events, self.position or before)] if events else []

    def _after(self, start: Position) -> Sequence[Entry]:
        return () if start == self.position else self.ring.after(start) or ()

    def _hold(self, events: Sequence[Event]) -> list[Step]:
        self._held += events
        self._held_size += sum([_size(event) for event in events])
        if self._held_size <= HELD_BYTES:
            return []
        held, self._held, self._held_size, self._covered = self._held, [], 0, 0
        # The log has these, except for the foreign ones.
        self._again = True
        if self.position is None:
            return []
        return self._deliver(self.position, [one for one in held if isinstance(one, Foreign)])

    def _ask(self, phase: Phase, reason: str) -> list[Step]:
        self._enter(phase, reason)
        return [Ask()]

    def _enter(self, phase: Phase, reason: str) -> None:
        before, self.phase = self.phase, phase
        if before is not phase and _log.isEnabledFor(logging.DEBUG):
            name = channel_name.for_log(self._name)
            _log.debug("channel %s: %s -> %s, %s", name, before.name, phase.name, reason)


def _is_next(entry: Entry, position: Position) -> bool:
    return (
        entry.payload is not None
        and entry.position.offset == position.offset + 1
        and entry.previous == position.nonce
        and entry.position.epoch == position.epoch
    )


def _size(event: Event) -> int:
    return max(len(event.payload or b""), _LEAST_BYTES)
