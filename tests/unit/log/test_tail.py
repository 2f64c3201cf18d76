"""The end of a log: one line for each transition, and what each step contains."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from flask_sse._log import tail as tail_module
from flask_sse._log.decoding import Event, Foreign
from flask_sse._log.page import TRIMMED, Page
from flask_sse._log.position import OFFSET_AT_TOP, OFFSET_BEFORE_LAST, Entry, Position
from flask_sse._log.tail import (
    Ask,
    Begin,
    Deliver,
    Phase,
    Ready,
    Restart,
    Step,
    Tail,
)
from tests.support.log import Log

ROOM: Final = 1 << 18
FOREIGN: Final = Foreign(b"data:foreign\n\n", b"foreign")
NEW, LOCATING, CONFIRMING, FOLLOWING, COMPARING = Phase
START: Final = 3
"""The length of the log at the beginning of each test."""


class Setting:
    """A tail in any phase, and its log."""

    def __init__(self, phase: Phase = NEW, *, sends_latest: bool = False) -> None:
        self.log = Log()
        self.log.add(START)
        self.tail = Tail(b"x", lambda: ROOM, sends_latest=sends_latest)
        while self.tail.phase is not phase:
            if self.tail.phase in (NEW, FOLLOWING):
                self.tail.compare()
            else:
                self.answer()

    def page(self) -> Page:
        """Return the answer that Redis gives now."""
        return self.log.page(self.tail.question())

    def answer(self) -> list[Step]:
        """Have Redis answer."""
        return self.tail.answered(self.page())

    def add(self, number: int = 1, data: str = "") -> list[Entry]:
        """Publish events, and do not let them arrive."""
        return self.log.add(number, data)


def _arrive_next(at: Setting) -> list[Step]:
    return at.tail.arrived(at.add())


def _arrive_after_a_hole(at: Setting) -> list[Step]:
    return at.tail.arrived(at.add(2)[1:])


def _arrive_from_another_log(at: Setting) -> list[Step]:
    at.log = Log("other")
    return at.tail.arrived(at.add(START + 1)[-1:])


def _arrive_as_a_large_event(at: Setting) -> list[Step]:
    (entry,) = at.add()
    return at.tail.arrived([entry._replace(frame=b"", payload=None)])


def _compare(at: Setting) -> list[Step]:
    return at.tail.compare()


def _fail(at: Setting) -> list[Step]:
    return at.tail.failed()


def _answer(at: Setting) -> list[Step]:
    return at.answer()


def _answer_with_more(at: Setting) -> list[Step]:
    at.log.page_bytes = 1
    at.add(2)
    return at.answer()


def _answer_what_is_too_old(at: Setting) -> list[Step]:
    at.tail.question()
    at.tail.compare()
    return at.answer()


def _answer_from_another_log(at: Setting) -> list[Step]:
    at.log = Log("other")
    return at.answer()


def _answer_before_a_hole(at: Setting) -> list[Step]:
    page = at.page()
    at.tail.arrived(at.add(2)[1:])
    return at.tail.answered(page)


def _answer_before_the_next(at: Setting) -> list[Step]:
    page = at.page()
    at.tail.arrived(at.add())
    return at.tail.answered(page)


@pytest.mark.parametrize(
    ("before", "what", "after", "steps"),
    [
        (NEW, _compare, LOCATING, [Ask]),
        (NEW, _arrive_next, NEW, []),
        (NEW, _arrive_after_a_hole, NEW, []),
        (LOCATING, _compare, LOCATING, []),
        (LOCATING, _arrive_next, LOCATING, []),
        (LOCATING, _arrive_after_a_hole, LOCATING, []),
        (LOCATING, _fail, LOCATING, [Ask]),
        (LOCATING, _answer, CONFIRMING, [Ask]),
        (LOCATING, _answer_what_is_too_old, CONFIRMING, [Ask]),
        (CONFIRMING, _compare, CONFIRMING, []),
        (CONFIRMING, _arrive_next, CONFIRMING, []),
        (CONFIRMING, _arrive_after_a_hole, CONFIRMING, []),
        (CONFIRMING, _fail, CONFIRMING, [Ask]),
        (CONFIRMING, _answer, FOLLOWING, [Begin, Ready]),
        (CONFIRMING, _answer_before_the_next, FOLLOWING, [Begin, Deliver, Ready]),
        (CONFIRMING, _answer_before_a_hole, COMPARING, [Begin, Ask]),
        (CONFIRMING, _answer_with_more, COMPARING, [Begin, Ask]),
        (CONFIRMING, _answer_what_is_too_old, COMPARING, [Begin, Ask]),
        (CONFIRMING, _answer_from_another_log, COMPARING, [Begin, Ask]),
        (FOLLOWING, _compare, COMPARING, [Ask]),
        (FOLLOWING, _arrive_next, FOLLOWING, [Deliver]),
        (FOLLOWING, _arrive_after_a_hole, COMPARING, [Ask]),
        (FOLLOWING, _arrive_from_another_log, COMPARING, [Ask]),
        (FOLLOWING, _arrive_as_a_large_event, COMPARING, [Ask]),
        (COMPARING, _compare, COMPARING, []),
        (COMPARING, _arrive_next, COMPARING, []),
        (COMPARING, _arrive_after_a_hole, COMPARING, []),
        (COMPARING, _fail, COMPARING, [Ask]),
        (COMPARING, _answer, FOLLOWING, [Ready]),
        (COMPARING, _answer_before_the_next, FOLLOWING, [Deliver, Ready]),
        (COMPARING, _answer_before_a_hole, COMPARING, [Ask]),
        (COMPARING, _answer_with_more, COMPARING, [Deliver, Ask]),
        (COMPARING, _answer_what_is_too_old, COMPARING, [Ask]),
        (COMPARING, _answer_from_another_log, FOLLOWING, [Restart, Ready]),
    ],
)
def test_a_transition(
    before: Phase, what: Callable[[Setting], list[Step]], after: Phase, steps: list[type[Step]]
) -> None:
    """The table in the docstring of `Tail` is true."""
    at = Setting(before)
    assert [type(step) for step in what(at)] == steps
    assert at.tail.phase is after


@pytest.mark.parametrize(
    ("what", "after", "steps"),
    [
        (_answer, FOLLOWING, [Begin, Ready]),
        (_answer_before_the_next, FOLLOWING, [Begin, Deliver, Ready]),
        (_answer_before_a_hole, COMPARING, [Begin, Ask]),
        (_answer_what_is_too_old, COMPARING, [Begin, Ask]),
    ],
)
def test_the_newest_event_needs_no_second_answer(
    what: Callable[[Setting], list[Step]], after: Phase, steps: list[type[Step]]
) -> None:
    """Clients that get it do not need to know where they begin in the log."""
    at = Setting(LOCATING, sends_latest=True)
    assert [type(step) for step in what(at)] == steps
    assert at.tail.phase is after


@pytest.mark.parametrize("phase", [NEW, FOLLOWING])
def test_an_answer_to_no_question(phase: Phase) -> None:
    """It is a fault in the caller."""
    at = Setting(phase)
    with pytest.raises(AssertionError):
        at.answer()


@pytest.mark.parametrize("phase", Phase)
def test_the_name_of_the_phase(phase: Phase) -> None:
    """It is in the representation, with the position."""
    at = Setting(phase)
    assert repr(at.tail) == f"<Tail 'x' {phase.name} at {at.tail.position}>"
    assert at.tail.is_following == (phase is FOLLOWING)


def test_a_change_of_phase_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With the channel, both phases and the reason; nothing is logged if it stays the same."""
    caplog.set_level(logging.DEBUG, "flask_sse")
    at = Setting(COMPARING)
    at.log.page_bytes = 1
    at.add(2)
    at.answer()
    at.answer()
    assert caplog.messages == [
        "channel 'x': NEW -> LOCATING, there is a listener",
        "channel 'x': LOCATING -> CONFIRMING, the log has been located",
        "channel 'x': CONFIRMING -> FOLLOWING, this is where the log ends",
        "channel 'x': FOLLOWING -> COMPARING, events may have been missed",
        "channel 'x': COMPARING -> FOLLOWING, this is where the log ends",
    ]
    caplog.clear()
    _, event = at.add(2)
    at.tail.arrived([event])
    assert caplog.messages == [
        f"channel 'x': FOLLOWING -> COMPARING, {event.position} is not the next event"
    ]
    caplog.clear()
    caplog.set_level(logging.INFO, "flask_sse")
    at.answer()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (_answer_with_more, "the log continues"),
        (_answer_what_is_too_old, "the answer may be too old"),
    ],
)
def test_the_reason_for_another_question(
    caplog: pytest.LogCaptureFixture, what: Callable[[Setting], list[Step]], reason: str
) -> None:
    """The log of the application tells whether more follows or the answer was too old."""
    at = Setting(CONFIRMING)
    caplog.set_level(logging.DEBUG, "flask_sse")
    what(at)
    assert caplog.messages == [f"channel 'x': CONFIRMING -> COMPARING, {reason}"]


@pytest.mark.parametrize(
    ("phase", "sends_latest", "offset"),
    [
        (LOCATING, False, OFFSET_AT_TOP),
        (CONFIRMING, False, OFFSET_AT_TOP),
        (COMPARING, False, START),
        (LOCATING, True, OFFSET_BEFORE_LAST),
        (COMPARING, True, OFFSET_BEFORE_LAST),
    ],
)
def test_a_question(phase: Phase, sends_latest: bool, offset: int) -> None:
    """It is about what comes after the position, or about the newest event."""
    assert Setting(phase, sends_latest=sends_latest).tail.question() == offset


def test_the_beginning() -> None:
    """Without events in between, streams begin at the top of the first answer."""
    at = Setting(LOCATING)
    top = at.log.top
    at.answer()
    missed = at.add(2)
    assert at.answer() == [Begin(top), Ask()]
    assert at.tail.position == top
    assert at.answer() == [Deliver(top, missed, at.log.top), Ready()]


def test_the_beginning_before_an_event() -> None:
    """`publish` has counted an event that arrived, so streams begin before it."""
    at = Setting(LOCATING)
    top = at.log.top
    events = at.add(2)
    assert at.tail.arrived([FOREIGN, *events]) == []
    at.answer()
    begin, ask = at.answer()
    assert (begin, ask) == (Begin(top), Ask())
    assert at.answer() == [
        Deliver(top, events, at.log.top),
        Deliver(at.log.top, [FOREIGN], at.log.top),
        Ready(),
    ]


def test_the_beginning_before_an_event_that_did_not_arrive() -> None:
    """If the first event that arrives is not the next one, the one before it is not skipped."""
    at = Setting(LOCATING)
    top = at.log.top
    page = at.page()
    missed, later = at.add(2)
    at.tail.arrived([later])
    at.tail.answered(page)
    assert at.answer() == [Begin(top), Ask()]
    assert at.answer() == [Deliver(top, [missed, later], later.position), Ready()]


@pytest.mark.parametrize("is_other", [False, True])
def test_the_beginning_before_an_event_that_the_log_does_not_have(is_other: bool) -> None:
    """The event says nothing about the place of the beginning."""
    at = Setting(LOCATING)
    top = at.log.top
    log = Log("other") if is_other else at.log.copy()
    later = log.add(START if is_other else 1)
    at.tail.arrived(later[-1:])
    at.answer()
    assert at.answer()[0] == Begin(top)


def test_the_beginning_with_the_newest_event() -> None:
    """It comes first, and the stream begins before it."""
    at = Setting(LOCATING, sends_latest=True)
    last = at.log.entries[-1]
    before = at.log.entries[-2].position
    assert at.answer() == [Begin(before, [last]), Ready()]
    assert at.tail.position == last.position
    assert at.tail.start(last.position) == before
    assert at.tail.start(at.log.entries[0].position) == at.log.entries[0].position
    at.log.entries = []
    at.tail.compare()
    assert at.answer() == [Ready()]
    assert at.tail.start(last.position) == last.position


def test_the_beginning_of_an_empty_log_with_its_newest_event() -> None:
    """There is none, so streams begin at the top."""
    at = Setting(LOCATING, sends_latest=True)
    at.log.entries = []
    assert at.answer() == [Begin(at.log.top), Ready()]


@pytest.mark.parametrize("sends_latest", [False, True])
def test_a_restart(sends_latest: bool) -> None:
    """It says from where to where, and why; the newest event follows if clients get it."""
    at = Setting(COMPARING, sends_latest=sends_latest)
    old, at.log = at.log.top, Log("other")
    first, last = at.add(2)
    restart, _ = at.answer()
    assert isinstance(restart, Restart)
    assert "Redis has lost it" in restart.reason
    assert restart.before == old
    assert restart.start == (first if sends_latest else last).position
    assert restart.entries == ([last] if sends_latest else ())
    assert at.tail.position == last.position
    later = at.add()
    assert at.tail.arrived(later) == [Deliver(last.position, later, at.log.top)]


def test_a_restart_because_the_log_is_trimmed() -> None:
    """The events after the position are gone."""
    at = Setting(COMPARING)
    old = at.log.top
    at.add(3)
    del at.log.entries[:-1]
    assert at.answer() == [Restart(TRIMMED, old, at.log.top), Ready()]


def test_a_page_that_begins_too_late() -> None:
    """If the page can't tell, the events before it are taken for lost."""
    at = Setting(COMPARING)
    old = at.log.top
    at.add(3)
    assert at.tail.answered(at.log.page(START + 1)) == [Restart(TRIMMED, old, at.log.top), Ready()]


def _altered(entry: Entry, **changes: str) -> Entry:
    position = entry.position
    epoch, nonce = changes.get("epoch", position.epoch), changes.get("nonce", position.nonce)
    previous = changes.get("previous", entry.previous)
    return entry._replace(position=Position(epoch, position.offset, nonce), previous=previous)


@pytest.mark.parametrize("changes", [{"epoch": "other"}, {"previous": "other"}])
def test_what_is_not_the_next_event(changes: dict[str, str]) -> None:
    """The number alone does not make it the next one."""
    at = Setting(FOLLOWING)
    (entry,) = at.add()
    assert at.tail.arrived([_altered(entry, **changes)]) == [Ask()]
    assert at.tail.position == at.log.entries[-2].position


def test_an_event_with_another_number() -> None:
    """Even if it names the position as the one before it, it is not the next one."""
    at = Setting(FOLLOWING)
    _, later = at.add(2)
    before = at.tail.position
    assert before is not None
    assert at.tail.arrived([_altered(later, previous=before.nonce)]) == [Ask()]


def test_the_next_events_before_a_hole() -> None:
    """They are delivered; those after the hole wait, except for the one that shows it."""
    at = Setting(FOLLOWING)
    top = at.log.top
    events = at.add(6)
    arriving: list[Event] = [events[0], FOREIGN, events[1], events[3], FOREIGN, events[4]]
    assert at.tail.arrived(arriving) == [
        Deliver(top, [events[0], FOREIGN, events[1]], events[1].position),
        Ask(),
    ]
    assert at.answer() == [
        Deliver(events[1].position, events[2:], at.log.top),
        Deliver(at.log.top, [FOREIGN], at.log.top),
        Ready(),
    ]


def test_events_that_are_repeated() -> None:
    """They are not delivered again, and the next ones are."""
    at = Setting(FOLLOWING)
    events = at.add(2)
    at.tail.arrived(events)
    assert at.tail.arrived(events) == []
    later = at.add()
    assert at.tail.arrived([*events, *later]) == [
        Deliver(events[-1].position, later, at.log.top),
    ]


def test_events_that_the_answer_covers() -> None:
    """They have been delivered, or lost; an old event that arrives later is another matter."""
    at = Setting(COMPARING)
    strange = _altered(at.log.entries[1], nonce="other")
    at.tail.arrived([strange])
    page = at.page()
    assert at.tail.answered(page) == [Ready()]
    at.tail.compare()
    page = at.page()
    at.tail.arrived([strange])
    assert at.tail.answered(page) == [Ask()]
    assert at.answer() == [Ready()]


def test_an_event_with_the_number_of_the_position() -> None:
    """If the answer covers it, it was lost with its log."""
    at = Setting(COMPARING)
    at.tail.arrived([_altered(at.log.entries[-1], nonce="other")])
    assert at.answer() == [Ready()]


def test_covered_events_that_the_answer_lacks() -> None:
    """An answer may come from a replica that is behind."""
    at = Setting(COMPARING)
    top = at.log.top
    page = at.page()
    events = at.add(2)
    at.tail.arrived(events)
    at.tail.question()
    assert at.tail.answered(page) == [Deliver(top, events, at.log.top), Ready()]


def _fill(tail: Tail, number: int, size: int) -> list[list[Step]]:
    payload = b"x" * size
    return [tail.arrived([Foreign(b"data:%d\n\n" % count, payload)]) for count in range(number)]


def test_as_much_as_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit, all events wait."""
    monkeypatch.setattr(tail_module, "HELD_BYTES", 1000)
    at = Setting(COMPARING)
    assert _fill(at.tail, 5, 200) == [[]] * 5
    deliver, ready = at.answer()
    assert isinstance(deliver, Deliver)
    assert len(deliver.events) == 5
    assert ready == Ready()
    at.tail.compare()
    assert _fill(at.tail, 5, 200) == [[]] * 5


def test_one_byte_more_than_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """All events without a log are delivered, and the count of bytes begins again."""
    monkeypatch.setattr(tail_module, "HELD_BYTES", 1000)
    at = Setting(COMPARING)

    def delivered() -> int:
        assert _fill(at.tail, 4, 200) == [[]] * 4
        [[deliver]] = _fill(at.tail, 1, 201)
        assert isinstance(deliver, Deliver)
        return len(deliver.events)

    assert delivered() == 5
    assert delivered() == 5
    while not at.tail.is_following:
        at.answer()
    at.tail.compare()
    assert delivered() == 5


def test_more_than_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events without a log are delivered at once, and the log is compared again."""
    monkeypatch.setattr(tail_module, "HELD_BYTES", 1000)
    at = Setting(COMPARING)
    top = at.log.top
    page = at.page()
    (logged,) = at.add()
    assert at.tail.arrived([logged]) == []
    *_, last = _fill(at.tail, 5, 200)
    (deliver,) = last
    assert isinstance(deliver, Deliver)
    assert (deliver.before, len(deliver.events), deliver.after) == (top, 5, top)
    assert _fill(at.tail, 5, 200) == [[]] * 5
    assert at.tail.answered(page) == [Ask()]
    delivered, held, ready = at.answer()
    assert delivered == Deliver(top, [logged], at.log.top)
    assert isinstance(held, Deliver)
    assert (len(held.events), ready) == (5, Ready())


@pytest.mark.parametrize("phase", [NEW, LOCATING, CONFIRMING])
def test_more_than_may_be_held_before_the_beginning(
    monkeypatch: pytest.MonkeyPatch, phase: Phase
) -> None:
    """No stream has begun, so events without a log are dropped."""
    monkeypatch.setattr(tail_module, "HELD_BYTES", 1000)
    at = Setting(phase)
    assert _fill(at.tail, 6, 200) == [[]] * 6
    while not at.tail.is_following:
        steps = at.answer() if phase is not NEW else at.tail.compare()
        phase = at.tail.phase
        assert not any(isinstance(step, Deliver) for step in steps)


def test_covered_events_that_were_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held after them is not taken for covered."""
    monkeypatch.setattr(tail_module, "HELD_BYTES", 1000)
    at = Setting(COMPARING)
    _fill(at.tail, 4, 200)
    page = at.page()
    _fill(at.tail, 2, 200)
    strange = _altered(at.log.entries[1], nonce="other")
    at.tail.arrived([strange])
    # The answer is too old, because something was dropped; the next one is not.
    assert at.tail.answered(page) == [Ask()]
    assert at.tail.answered(page) == [Ask()]


def test_large_events_that_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each announcement takes memory, even though it has no contents."""
    monkeypatch.setattr(tail_module, "HELD_BYTES", 1000)
    at = Setting(COMPARING)
    page = at.page()
    events = [entry._replace(frame=b"", payload=None) for entry in at.add(11)]
    for event in events[:10]:
        at.tail.arrived([event])
    assert len(_held(at.tail, page)) == 1
    at.tail.arrived(events)
    assert at.tail.answered(page) == [Ask()]


def _held(tail: Tail, page: Page) -> Sequence[Step]:
    """Answer, and return to the phase before."""
    steps = tail.answered(page)
    assert tail.phase is COMPARING
    return steps


def test_room_that_becomes_smaller() -> None:
    """The oldest entries are forgotten with the next answer."""
    room = ROOM
    at = Setting()
    at.tail = Tail(b"x", lambda: room)
    at.tail.compare()
    at.answer()
    at.answer()
    top = at.log.top
    at.tail.arrived(at.add(10))
    assert len(at.tail.ring.after(top) or ()) == 10
    room = 1
    at.tail.compare()
    at.answer()
    assert at.tail.ring.after(top) is None
    assert at.tail.ring.after(at.log.entries[-2].position) == at.log.entries[-1:]


# The end of the channel


@pytest.mark.parametrize("sends_latest", [False, True])
def test_the_beginning_of_a_channel_that_has_ended(sends_latest: bool) -> None:
    """The step says where the end before is; a channel that keeps one event has it and the end."""
    at = Setting(LOCATING, sends_latest=sends_latest)
    last = at.log.entries[-1]
    end = at.log.end()
    if sends_latest:
        assert at.answer() == [Begin(last.before, [last, end], 0), Ready()]
        assert at.tail.start(end.position) == last.before
    else:
        at.answer()
        assert at.answer() == [Begin(end.position, ends_after=0), Ready()]


def test_the_beginning_with_nothing_but_an_end() -> None:
    """A channel that keeps one event may have had none."""
    at = Setting(LOCATING, sends_latest=True)
    at.log = Log()
    end = at.log.end()
    assert at.answer() == [Begin(end.before, [end], 0), Ready()]


def test_the_beginning_before_an_end() -> None:
    """If it comes after the subscription, streams begin before it, and get it like others."""
    at = Setting(LOCATING)
    top = at.log.top
    end = at.log.end()
    at.tail.arrived([end])
    at.answer()
    assert at.answer() == [Begin(top), Ask()]
    assert at.answer() == [Deliver(top, [end], end.position), Ready()]


def test_the_beginning_of_a_channel_that_begins_anew() -> None:
    """Between two answers, somebody publishes: the first answer says where streams begin."""
    at = Setting(LOCATING)
    end = at.log.end()
    at.answer()
    (event,) = at.add()
    assert at.answer() == [Begin(end.position, ends_after=0), Ask()]
    assert at.answer() == [Deliver(end.position, [event], event.position), Ready()]


@pytest.mark.parametrize("sends_latest", [False, True])
def test_another_log_that_has_ended(sends_latest: bool) -> None:
    """The step says so, too."""
    at = Setting(COMPARING, sends_latest=sends_latest)
    at.log = Log("other")
    (event,) = at.add()
    end = at.log.end()
    restart = at.answer()[0]
    assert isinstance(restart, Restart)
    assert restart.ends_after == 0
    assert [*restart.entries] == ([event, end] if sends_latest else [])
