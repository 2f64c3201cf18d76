"""A channel with history: carries out for its listeners what the tail of its log says.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from flask_sse._event import channel_name
from flask_sse._hub import log_batches
from flask_sse._hub.batch import Batch
from flask_sse._hub.listener import Listener
from flask_sse._hub.replaying_channel import ReplayingChannel
from flask_sse._log import ending
from flask_sse._log.decoding import Event, up_to_end
from flask_sse._log.page import Page
from flask_sse._log.position import Entry, Position
from flask_sse._log.tail import Ask, Begin, Deliver, Phase, Ready, Restart, Step, Tail
from flask_sse._system.clock import monotonic

_log: Final = logging.getLogger("flask_sse")


class LoggedChannel(ReplayingChannel):
    """A channel with a log in Redis.

    :param note_question: Called when :meth:`questions` has some.
    :param room: Returns how many bytes of events may be kept in memory.
    :param sends_latest: Whether a listener without a position gets the newest event.
    """

    __slots__ = ("_note",)

    def __init__(
        self,
        name: bytes,
        note_question: Callable[["LoggedChannel"], None],
        pause: Callable[[], None],
        room: Callable[[], int],
        *,
        sends_latest: bool,
    ) -> None:
        super().__init__(name, pause, Tail(name, room, sends_latest=sends_latest))
        self._note = note_question

    def __repr__(self) -> str:
        return f"<LoggedChannel {self._tail!r} {self._catch_up!r}>"

    def begin(self) -> list[Listener]:
        """Make sure that nothing was missed, because the subscription is new."""
        return self.compare()

    def confirm(self) -> list[Listener]:
        """Continue with the listeners that have waited for the subscription."""
        if self._tail.is_following:
            return [*self._open_waiting()]
        return self.compare() if self._tail.phase is Phase.NEW else []

    # What Redis says

    def arrived(self, events: Sequence[Event]) -> list[Listener]:
        """Process events from the subscription."""
        return self._carry_out(self._tail.arrived(events))

    def questions(self) -> Iterator[tuple[int, bool]]:
        """Yield the offsets after which to read the log, and whether it is for all listeners."""
        epoch = "" if self.position is None else self.position.epoch
        if (after := self._catch_up.question(epoch)) is not None:
            yield after, False
        if self._asks:
            self._asks = False
            yield self._tail.question(), True

    def failed(self, *, is_fill: bool) -> None:
        """Repeat a question that Redis has not answered."""
        if is_fill:
            self._carry_out(self._tail.failed())
        else:
            self._catch_up.failed()
            self._note_question()

    def answered(self, page: Page, *, is_fill: bool) -> list[Listener]:
        """Process the answer to one of the questions."""
        if not is_fill:
            return [*self._share(page)]
        self._joined = None
        self.heard = monotonic()
        return self._carry_out(self._tail.answered(page))

    def _note_question(self) -> None:
        self._note(self)

    # The steps

    def _carry_out(self, steps: Sequence[Step]) -> list[Listener]:
        if Ask() in steps:
            # This comes first: without an answer, an error below would stop the channel.
            self._ask()
        lost: list[Listener] = []
        for step in steps:
            match step:
                case Ask():
                    pass
                case Begin():
                    lost += self._begin(step)
                case Deliver():
                    lost += self._deliver(step)
                case Restart():
                    lost += self._restart(step)
                case Ready():
                    lost += self._resume()
        return lost

    def _begin(self, step: Begin) -> Iterator[Listener]:
        self.position = step.entries[-1].position if step.entries else step.start
        self._ends_after = step.ends_after
        start = step.start if step.entries else self._start_of_new(step.start)
        # This happens before newer events are sent.
        for listener in [*self._waiting]:
            if listener.resume_after is None:
                del self._waiting[listener]
                if not self._start(listener, start, step.entries):
                    yield listener

    def _deliver(self, step: Deliver) -> list[Listener]:
        if step.after != step.before:
            self.position = step.after
            self.heard = monotonic()
            newest = next(one for one in reversed(step.events) if isinstance(one, Entry))
            self._ends_after = newest.ends_after
        batch = log_batches.from_events(up_to_end(step.events))
        return self._broadcast(step.before, batch) if batch.frames else []

    def _restart(self, step: Restart) -> list[Listener]:
        _log.warning(
            "clients of channel %s are told that they may have missed events: %s",
            channel_name.for_log(self.name),
            step.reason,
        )
        self.position = step.entries[-1].position if step.entries else step.start
        self._ends_after = step.ends_after
        entries = up_to_end(step.entries)
        if step.ends_after is not None and not entries:
            entries = [ending.entry(self.name, step.start)]
        strict = [one for one in [*self._subscribers] if not one.note_gap(step.reason)]
        batch = log_batches.reset(self.name, step.reason, step.start, entries)
        # A listener without room for it keeps its position, and learns about the reset later.
        return [*strict, *self._broadcast(step.before, batch)]

    def _broadcast(self, before: Position, batch: Batch) -> list[Listener]:
        lives = () if batch.end is None else self._live
        # Those that do not accept all of it at once are not live after that.
        connections = [connection for live in lives for connection in live.values()]
        lost = self.send(batch, self._pause)
        for listener in [*self._subscribers]:
            if listener.is_behind:
                del self._subscribers[listener]
                self._fall_behind(listener, before)
                # It may have taken everything in the meantime.
                lost += self.refill(listener)
        if batch.end is not None:
            gone = {*lost}
            ended = [one for one in (*connections, *self._subscribers) if one not in gone]
            lost += [one for one in ended if not self._end(one)]
            lost += self._parts.end(gone) if self._parts else []
        return lost

    def _resume(self) -> Iterator[Listener]:
        yield from self._open_waiting()
        for listener in self._catch_up:
            if not self._catch_up.is_waiting(listener):
                yield from self.refill(listener)
                self._pause()

    def _open_waiting(self) -> Iterator[Listener]:
        assert self.position is not None
        waiting, self._waiting = self._waiting, {}
        for listener in waiting:
            if listener.resume_after is None:
                start = self._start_of_new(self._tail.start(self.position))
                is_there = self._start(listener, start)
            else:
                self._fall_behind(listener, listener.resume_after)
                is_there = self._advance(listener)
            if not is_there:
                yield listener
            self._pause()
