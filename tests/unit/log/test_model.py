"""The guarantee of history as a model of the tail and of those who catch up, without Redis.

Each history is random and repeatable: events are lost, pages are short, logs are trimmed, lost or
restored, answers fail or come before older events, channels end and begin anew. Each client's
record is checked event by event.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from flask_sse._log import tail as tail_module
from flask_sse._log.catch_up import Ahead, CatchUp, Found, Gap
from flask_sse._log.decoding import Event, Foreign, up_to_end
from flask_sse._log.page import Page
from flask_sse._log.position import (
    ANY_EPOCH,
    OFFSET_AT_TOP,
    OFFSET_BEFORE_LAST,
    UNKNOWN,
    Cursor,
    Entry,
    Mark,
    Position,
)
from flask_sse._log.tail import Ask, Begin, Deliver, Ready, Restart, Step, Tail

HELD_BYTES: Final = 1000
_PAYLOAD: Final = b"x" * 60


class Redis:
    """A log, and all that ever happened to it."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.numbers = itertools.count(1)
        self.before: dict[Position, Position] = {}
        """The position before each event, of this log and of all earlier ones."""
        self.positions: list[Position] = []
        self.has_lost = False
        self.lose()
        self.has_lost = False
        self.take_snapshot()

    def lose(self) -> None:
        """Begin another log."""
        self.has_lost = True
        self.entries: list[Entry] = []
        self.ended = 0
        """The offset of the last end."""
        self.top = Position(f"e{next(self.numbers)}", 0, "0")
        self.positions.append(self.top)

    @property
    def ends_after(self) -> int | None:
        """If the newest entry is an end, the offset of the end before."""
        return self.entries[-1].ends_after if self.entries else None

    def end(self) -> Entry | None:
        """Add an end, unless there is one."""
        if self.ends_after is not None:
            return None
        end = self._append(self.ended, self.kept + 1)
        self.ended = end.position.offset
        return end

    def publish(self) -> Entry:
        """Add an event."""
        return self._append(None, self.kept)

    def _append(self, ends_after: int | None, kept: int) -> Entry:
        previous = self.top
        self.top = Position(previous.epoch, previous.offset + 1, f"n{next(self.numbers)}")
        entry = Entry(self.top, previous.nonce, b"f", _PAYLOAD, ends_after)
        self.before[self.top] = previous
        self.positions.append(self.top)
        self.has_lost |= len(self.entries) >= kept
        self.entries = [*self.entries, entry][-kept:]
        return entry

    def trim(self, kept: int) -> None:
        """Forget all but the newest events."""
        self.has_lost = True
        self.entries = self.entries[len(self.entries) - kept :] if kept else []

    def restore(self) -> None:
        """Go back in time."""
        self.has_lost = True
        self.entries, self.top, self.ended = self.snapshot

    def take_snapshot(self) -> None:
        """Save the log."""
        self.snapshot = self.entries, self.top, self.ended

    def page(self, after: int, length: int) -> Page:
        """Answer a question."""
        top = self.top.offset
        before_last = max(top - (1 if self.ends_after is None else 2), 0)
        start = {OFFSET_AT_TOP: top, OFFSET_BEFORE_LAST: before_last}.get(after, after)
        entries = [entry for entry in self.entries if entry.position.offset > start]
        length = max(length, 2 if after == OFFSET_BEFORE_LAST else 0)
        return Page(after, self.top, entries[:length], self.ends_after)

    def continues(self, position: Position) -> bool:
        """Whether all events after a position are in the log."""
        if position == self.top:
            return True
        return any(self.before[entry.position] == position for entry in self.entries)


class Client:
    """A client's record."""

    def __init__(self, cursor: Position | None) -> None:
        self.last = cursor
        self.has_ended = False

    def take(self, redis: Redis, events: Sequence[Event]) -> None:
        """Each event follows the one before."""
        for event in events:
            if isinstance(event, Entry):
                assert not self.has_ended, "an event after the end"
                assert redis.before[event.position] == self.last, "a gap, or an event twice"
                self.last = event.position
                self.has_ended = event.is_end


class Question:
    """A question in progress."""

    def __init__(self, after: int, published: int) -> None:
        self.after = after
        self.published = published
        """How many events had been published when it was asked."""
        self.page: Page | None = None
        self.sound: dict[object, bool] = {}
        """For each of those it was asked for: whether the log continues there."""


class History:
    """One random history; a channel's part is played by the methods that carry out the steps.

    :param has_marks: Whether clients send marks instead of positions.
    """

    def __init__(self, seed: int, *, has_marks: bool) -> None:
        self.chance = random.Random(seed)
        self.has_marks = has_marks
        self.sends_latest = self.chance.random() < 0.2
        self.redis = Redis(1 if self.sends_latest else self.chance.choice([4, 50, 200]))
        for _ in range(self.chance.randint(0, 4)):
            self.redis.publish()
        room = self.chance.choice([1, 1500, 1 << 18])
        self.tail = Tail(b"x", lambda: room, sends_latest=self.sends_latest)
        self.catch_up = CatchUp[Client]()
        self.position: Position | None = None
        self.ends_after: int | None = None
        self.live: list[Client] = []
        self.joining: list[Client] = [Client(None)]
        self.everybody: list[Client] = [*self.joining]
        self.sent: list[Event] = []
        """Events on their way through the subscription."""
        self.published = 0
        self.received = 0
        self.foreign = 0
        self.due: list[bytes] = []
        """The events without a log that must be delivered."""
        self.delivered: list[bytes] = []
        self.asks = False
        self.resets = 0
        self.fill: Question | None = None
        self.read: Question | None = None
        self.loss = self.chance.choice([0.0, 0.1, 0.3])
        self.late = self.chance.choice([0.0, 0.5])
        """How often an event is published and a client comes between a question and its answer."""

    def run(self) -> None:
        """Let things happen, and then let everybody reach the end of the log."""
        self.carry_out(self.tail.compare())
        what: list[Callable[[], None]] = [
            self.publish,
            self.arrive,
            self.arrive,
            self.ask,
            self.answer_tail,
            self.answer_clients,
        ]
        often = self.chance.choice([1, 4])
        rare: list[Callable[[], None]] = [
            self.publish_foreign,
            self.end,
            self.compare,
            self.resume,
            self.resume,
            self.join,
            self.drain,
            self.fail,
        ]
        if self.chance.random() < 0.7:
            rare += [self.trim, self.redis.lose, self.redis.take_snapshot, self.redis.restore]
        for happens in self.chance.choices([*what * often, *rare], k=self.chance.randint(10, 60)):
            happens()
        self.settle()

    # What happens

    def publish(self) -> None:
        """Publish some events, of which some may be lost."""
        for _ in range(self.chance.randint(1, 3)):
            entry = self.redis.publish()
            if self.chance.random() < self.loss:
                continue
            is_large = self.chance.random() < 0.05
            self.send(entry._replace(frame=b"", payload=None) if is_large else entry)

    def end(self) -> None:
        """End the channel; the event may be lost."""
        entry = self.redis.end()
        if entry is not None and self.chance.random() >= self.loss:
            self.send(entry)

    def publish_foreign(self) -> None:
        """Publish an event without a log."""
        self.foreign += 1
        self.send(Foreign(b"f", b"%060d" % self.foreign))

    def send(self, event: Event) -> None:
        """Send an event through the subscription."""
        self.sent.append(event)
        self.published += 1

    def arrive(self, number: int | None = None) -> None:
        """Let some of the events arrive."""
        if number is None:
            number = self.chance.randint(0, len(self.sent))
        events, self.sent = self.sent[:number], self.sent[number:]
        self.received += len(events)
        if self.tail.position is not None:
            self.due += [event.payload for event in events if isinstance(event, Foreign)]
        self.carry_out(self.tail.arrived(events))

    def compare(self) -> None:
        """Begin a new subscription."""
        self.carry_out(self.tail.compare())

    def join(self) -> None:
        """A client comes without a position."""
        client = Client(None)
        self.everybody.append(client)
        self.joining.append(client)
        if self.tail.is_following:
            self.open_joining()

    def resume(self) -> None:
        """A client comes back from anywhere."""
        client = Client(UNKNOWN)
        if self.chance.random() < 0.9:
            client.last = self.chance.choice(self.redis.positions[-20:])
        self.everybody.append(client)
        assert client.last is not None
        self.catch_up.add(client, self.sent_by(client.last))
        self.advance(client)

    def sent_by(self, position: Position) -> Cursor:
        """Return what a client sends that is at a position."""
        if not self.has_marks:
            return position
        if position == UNKNOWN:
            return Mark(self.chance.choice([*range(20), 1 << 42]), "made-up")
        return Mark.of(position)

    def drain(self) -> None:
        """Clients that are behind have taken everything."""
        for client in self.catch_up:
            self.advance(client)

    def trim(self) -> None:
        """The log is trimmed."""
        self.redis.trim(self.chance.randint(0, len(self.redis.entries)))

    def ask(self) -> None:
        """Ask the questions, and perhaps have them read at once."""
        epoch = "" if self.position is None else self.position.epoch
        if self.read is None and (after := self.catch_up.question(epoch)) is not None:
            self.read = Question(after, self.published)
        if self.asks:
            self.asks = False
            self.fill = Question(self.tail.question(), self.published)
        if self.chance.random() < 0.5:
            self.look_up()
            if self.chance.random() < self.late:
                self.publish()
                self.resume()

    def look_up(self) -> None:
        """Redis reads the log."""
        length = self.chance.choice([1, 2, 3, 100])
        if self.fill is not None and self.fill.page is None:
            self.fill.page = self.redis.page(self.fill.after, length)
            if self.tail.position is not None:
                self.fill.sound[self.tail] = self.redis.continues(self.tail.position)
        if self.read is not None and self.read.page is None:
            self.read.page = self.redis.page(self.read.after, length)
            for client in self.catch_up.waiting:
                assert client.last is not None
                self.read.sound[client] = self.redis.continues(client.last)

    def fail(self) -> None:
        """Redis does not answer."""
        if self.fill is not None:
            self.fill = None
            self.carry_out(self.tail.failed())
        if self.read is not None:
            self.read = None
            self.catch_up.failed()

    def answer_tail(self) -> None:
        """The answer arrives, after the events that are older than the question."""
        self.look_up()
        question = self.fill
        if question is None or question.page is None or self.chance.random() < 0.3:
            return
        self.fill = None
        self.arrive(max(0, question.published - self.received))
        for step in (steps := self.tail.answered(question.page)):
            if isinstance(step, Restart):
                assert not question.sound[self.tail], f"a reset without a cause: {step}"
        self.carry_out(steps)

    def answer_clients(self) -> None:
        """The clients that wait get a page."""
        self.look_up()
        question = self.read
        if question is None or question.page is None or self.chance.random() < 0.3:
            return
        self.read = None
        assert self.position is not None
        self.tail.ring.extend_left(question.page.entries, self.position)
        for client, found in self.catch_up.answered(question.page, self.position):
            if client.last is not None and client.last.epoch == ANY_EPOCH:
                self.locate(client)
            assert isinstance(found, Gap) or self.catch_up.cursor(client) == client.last
            self.tell(client, found, question, question.page.top)

    def settle(self) -> None:
        """Nothing more is lost, and silence has the log compared."""
        self.loss = self.late = 0.0
        self.arrive(len(self.sent))
        # Held events of a log that was restored are delivered after the first comparison.
        for _ in range(2):
            self.compare()
            self.answer_all()
        assert self.tail.is_following
        assert not self.catch_up
        assert not self.joining
        assert self.position == self.tail.position == self.redis.top
        assert self.ends_after is None or not self.live
        for client in self.everybody:
            assert client.has_ended or (client.last == self.redis.top and client in self.live)
        assert self.delivered == sorted({*self.delivered}), "twice, or in another order"
        assert {*self.due} <= {*self.delivered}

    def answer_all(self) -> None:
        """Redis answers until nobody asks."""
        for _ in range(2000):
            self.ask()
            self.answer_tail()
            self.answer_clients()
            self.drain()
            if self.tail.is_following and self.fill is None and not self.asks and not self.catch_up:
                return
        raise AssertionError("there is no end of questions")

    # The steps

    def carry_out(self, steps: Sequence[Step]) -> None:
        """Do what a channel does."""
        for step in steps:
            match step:
                case Ask():
                    assert not self.asks
                    assert self.fill is None
                    self.asks = True
                case Begin():
                    self.position = step.entries[-1].position if step.entries else step.start
                    self.ends_after = step.ends_after
                    self.open_joining(step.start, step.entries)
                case Deliver():
                    self.deliver(step)
                case Restart():
                    self.restart(step)
                case Ready():
                    self.open_joining()
                    for client in self.catch_up:
                        if not self.catch_up.is_waiting(client) and self.chance.random() < 0.7:
                            self.advance(client)

    def deliver(self, step: Deliver) -> None:
        """Send events to the live clients; some have no room for them and fall behind."""
        assert step.before == self.position
        self.position = step.after
        entries = [event for event in step.events if isinstance(event, Entry)]
        if entries:
            self.ends_after = entries[-1].ends_after
        events = up_to_end(step.events)
        self.delivered += [one.payload for one in step.events if isinstance(one, Foreign)]
        for client in [*self.live]:
            if self.chance.random() < 0.1:
                self.live.remove(client)
                self.catch_up.add(client, step.before)
            else:
                client.take(self.redis, events)
                assert client.has_ended or client.last == step.after
                if client.has_ended:
                    self.live.remove(client)

    def restart(self, step: Restart) -> None:
        """Tell the live clients."""
        self.resets += 1
        assert step.before == self.position
        self.position = step.entries[-1].position if step.entries else step.start
        self.ends_after = step.ends_after
        for client in [*self.live]:
            client.last = step.start
            client.take(self.redis, up_to_end(step.entries))
            client.has_ended |= step.ends_after is not None
            if client.has_ended:
                self.live.remove(client)

    def open_joining(self, start: Position | None = None, entries: Sequence[Entry] = ()) -> None:
        """Begin the streams of those without a position."""
        assert self.position is not None
        joining, self.joining = self.joining, []
        for client in joining:
            client.last = start or self.tail.start(self.position)
            if self.ends_after is not None and client.last == self.position:
                client.last = Position(ANY_EPOCH, self.ends_after, "")
            client.take(self.redis, up_to_end(entries))
            if client.has_ended:
                continue
            self.catch_up.add(client, client.last)
            if client.last == self.position:
                self.go_live(client)
            else:
                self.advance(client)

    def go_live(self, client: Client) -> None:
        """From now on it gets everything, or it is told that the channel has ended."""
        self.catch_up.discard(client)
        client.has_ended = self.ends_after is not None
        if not client.has_ended:
            self.live.append(client)

    def locate(self, client: Client) -> None:
        """Note where a client begins that came after the end."""
        start = self.catch_up.cursor(client)
        assert client.last is not None
        assert isinstance(start, Position)
        assert start.offset == client.last.offset or self.redis.has_lost
        client.last = start

    def advance(self, client: Client) -> None:
        """Give a client what is in memory."""
        while self.tail.is_following and (cursor := self.catch_up.cursor(client)):
            assert self.position is not None
            cursor = self.tail.ring.locate(cursor, self.position)
            if cursor == self.position:
                self.go_live(client)
                return
            entries = self.tail.ring.after(cursor)
            if entries is None:
                self.catch_up.wait(client)
                return
            most = min(self.position.offset - cursor.offset, self.chance.randint(1, 10))
            self.give(client, entries[:most])

    def tell(self, client: Client, found: Found, question: Question, top: Position) -> None:
        """Tell a client what a page says."""
        if isinstance(found, Ahead):
            self.compare()
            return
        if isinstance(found, Gap):
            is_sound = question.sound.get(client, not self.redis.has_lost)
            cause = client.last == UNKNOWN or self.sends_latest or not is_sound
            assert cause, f"a reset without a cause: {found}"
            self.resets += 1
            client.last = self.tail.start(top)
            self.catch_up.add(client, client.last)
        else:
            self.give(client, found)
        self.advance(client)

    def give(self, client: Client, entries: Sequence[Entry]) -> None:
        """Give a client a page."""
        entries = up_to_end(entries)
        client.take(self.redis, entries)
        if client.has_ended:
            self.catch_up.discard(client)
        elif entries:
            self.catch_up.add(client, entries[-1].position)


@pytest.mark.parametrize("has_marks", [False, True], ids=["positions", "marks"])
@pytest.mark.parametrize(
    ("first", "number"),
    [
        *((first, 100) for first in range(0, 500, 100)),
        pytest.param(500, 100_000, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
def test_the_guarantee(
    monkeypatch: pytest.MonkeyPatch, first: int, number: int, has_marks: bool
) -> None:
    """No gap, nothing twice, no reset without a cause; and everybody reaches the end."""
    monkeypatch.setattr(tail_module, "HELD_BYTES", HELD_BYTES)
    resets = 0
    for seed in range(first, first + number):
        history = History(seed, has_marks=has_marks)
        try:
            history.run()
        except Exception as error:
            error.add_note(f"in the history with seed {seed}")
            raise
        resets += history.resets
    assert resets
