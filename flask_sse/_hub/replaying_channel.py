"""A channel with history: what each listener gets of its log.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.

A listener is either live and gets every batch, or it is behind: it has a position, and gets the
events after it page by page, from memory or from the log, until it reaches the channel's
position. A listener that resumes is behind at first, and a listener that does not read falls
behind. So no more than one page waits for a listener.

If one of the events is the channel's end, each listener gets the events up to it, and leaves the
channel. Later events are for those that come later. As long as there are none, a listener that
comes gets the end as its last event. Without a position, it first gets the events since the end
before.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from flask_sse._hub import log_batches
from flask_sse._hub.batch import Batch
from flask_sse._hub.channel import Channel
from flask_sse._hub.connection import Connection
from flask_sse._hub.listener import Listener
from flask_sse._log import ending
from flask_sse._log.catch_up import Ahead, CatchUp, Found, Gap
from flask_sse._log.decoding import up_to_end
from flask_sse._log.page import Page, first_page
from flask_sse._log.position import ANY_EPOCH, UNKNOWN, Cursor, Entry, Position
from flask_sse._log.tail import Tail
from flask_sse._system.clock import monotonic


class ReplayingChannel(Channel, ABC):
    """A channel whose listeners get what they have missed.

    Its methods return the listeners that must be dropped: those that are gone, and those whose
    streams have ended.

    :param pause: Called now and then, to let others run.
    :param tail: The end of its log.
    """

    __slots__ = (
        "_asks",
        "_catch_up",
        "_ends_after",
        "_joined",
        "_pause",
        "_tail",
        "heard",
        "position",
    )

    def __init__(self, name: bytes, pause: Callable[[], None], tail: Tail) -> None:
        super().__init__(name, is_logged=True)
        self.position: Position | None = None
        """The last event that the live listeners have received; `None` before the beginning."""
        # If that event is an end, the offset of the end before.
        self._ends_after: int | None = None
        self.heard = monotonic()
        """The last time at which the log was known to have no newer events."""
        self._pause = pause
        self._tail = tail
        self._catch_up = CatchUp[Listener]()
        # Whether the question of the tail has not been asked yet.
        self._asks = False
        self._joined: tuple[tuple[Position, Position], Batch] | None = None

    def __bool__(self) -> bool:
        return len(self._catch_up) > 0 or super().__bool__()

    @property
    def lagging(self) -> int:
        """How many clients have not taken everything."""
        return len(self._catch_up)

    def __iter__(self) -> Iterator[Listener]:
        """Iterate over a snapshot of the listeners."""
        return iter([*super().__iter__(), *self._catch_up])

    # The listeners

    def place(self, connection: Connection) -> Sequence[Listener]:
        """Add a connection to those that are live, or to those that are behind."""
        if not connection.is_behind:
            if not connection.is_lagging:
                return super().place(connection)
            assert self.position is not None
            self._discard_connection(connection)
            self._fall_behind(connection, self.position)
        return self.refill(connection)

    def add_live(self, listener: Listener, cursor: Cursor | None) -> None:
        """Add a listener whose stream has begun, and which is behind until it is asked again."""
        assert cursor is not None
        self._fall_behind(listener, cursor)

    def discard(self, listener: Listener) -> None:
        """Forget a listener, if it is known."""
        self._catch_up.discard(listener)
        super().discard(listener)

    def refill(self, listener: Listener) -> Sequence[Listener]:
        """Continue with a listener that has taken everything."""
        return () if self._advance(listener) else [listener]

    def compare(self) -> list[Listener]:
        """Compare the log with what the listeners have received."""
        if self._tail.compare():
            self._ask()
        return []

    @abstractmethod
    def _note_question(self) -> None:
        """Note that there is a question for Redis."""

    def _ask(self) -> None:
        """Ask the question of the tail."""
        self._asks = True
        self._note_question()

    def _start_of_new(self, start: Position) -> Position:
        """Return where a listener without a position starts if the tail says *start*."""
        if self._ends_after is None or start != self.position:
            return start
        return Position(ANY_EPOCH, self._ends_after, "")

    # One listener: `False` means that it must be dropped

    def _start(self, listener: Listener, start: Position, entries: Sequence[Entry] = ()) -> bool:
        self._fall_behind(listener, start)
        if start.epoch == ANY_EPOCH:
            # The page that it needs first shows where it starts.
            return self._serve(listener)
        is_there = listener.give(log_batches.opening(self.name, start, recovered=False))
        if is_there and entries and listener.is_ready:
            is_there = self._give_page(listener, entries)
        return is_there and self._serve(listener)

    def _advance(self, listener: Listener) -> bool:
        """Continue with a listener that is behind, unless an answer is needed first."""
        return self._serve(listener) if self._tail.is_following else True

    def _serve(self, listener: Listener) -> bool:
        """Give a listener the pages that are in memory, and make it live at the end."""
        assert self.position is not None
        while (cursor := self._catch_up.cursor(listener)) and not listener.is_blocked:
            cursor = self._tail.ring.locate(cursor, self.position)
            if cursor == self.position:
                return self._join(listener, self.position)
            if not listener.is_ready:
                break
            entries = self._tail.ring.after(cursor)
            if entries is None:
                self._catch_up.wait(listener)
                self._note_question()
                break
            # Live listeners get the events after the position later, and this one with them.
            left = self.position.offset - cursor.offset
            if not self._give_page(listener, first_page(entries, left)):
                return False
        return True

    def _join(self, listener: Listener, cursor: Position) -> bool:
        """Make a listener live, or tell it that the channel has ended."""
        if self._ends_after is not None:
            return self._give_page(listener, [ending.entry(self.name, cursor)])
        self._catch_up.discard(listener)
        listener.is_behind = False
        is_there = self._open(listener, cursor)
        self._go_live(listener)
        return is_there

    def _fall_behind(self, listener: Listener, cursor: Cursor) -> None:
        listener.is_behind = True
        self._catch_up.add(listener, cursor)

    def _share(self, page: Page) -> Iterator[Listener]:
        """Give a page to the listeners that have waited for it."""
        assert self.position is not None
        self._tail.ring.extend_left(page.entries, self.position)
        for listener in self._catch_up.waiting:
            # If a comment is waiting for a connection, it continues after the comment is sent.
            if listener.is_blocked:
                self._catch_up.stop_waiting(listener)
        for listener, found in self._catch_up.answered(page, self.position):
            if not self._tell(listener, found, page.top):
                yield listener
            self._pause()
        if self._catch_up.waiting:
            self._note_question()

    def _tell(self, listener: Listener, found: Found, top: Position) -> bool:
        if isinstance(found, Ahead):
            self.compare()
            return True
        if isinstance(found, Gap):
            is_there = self._reset(listener, found.reason, top)
        else:
            is_there = self._give_page(listener, found)
        return is_there and self._advance(listener)

    def _reset(self, listener: Listener, reason: str, top: Position) -> bool:
        if not listener.note_gap(reason):
            return False
        cursor = self._catch_up.cursor(listener)
        assert cursor is not None
        if listener.is_open and listener.is_blocked:
            return True
        start = self._tail.start(top)
        self._catch_up.add(listener, start)
        if listener.is_open:
            return listener.give(log_batches.reset(self.name, reason, start))
        # A client that loses its connection between the two events resumes with its own id.
        known = start if cursor == UNKNOWN else cursor
        return listener.give(log_batches.opening_with_reset(self.name, known, reason, start))

    def _give_page(self, listener: Listener, entries: Sequence[Entry]) -> bool:
        cursor = self._catch_up.cursor(listener)
        assert cursor is not None
        if not self._open(listener, cursor):
            return False
        if not entries or listener.is_blocked:
            return True
        entries = up_to_end(entries)
        batch = self._to_page(entries)
        self._catch_up.add(listener, entries[-1].position)
        is_there = not batch.frames or listener.give(batch)
        if batch.frames and self.report is not None:
            self.report(self, batch, 1, replayed=True)
        return self._end(listener) if batch.end is not None and is_there else is_there

    def _end(self, listener: Listener) -> bool:
        """Forget a listener that has got the channel's end."""
        self.discard(listener)
        return listener.note_end()

    def _open(self, listener: Listener, cursor: Cursor) -> bool:
        has_resumed = listener.resume_after is not None
        return listener.is_open or listener.give(
            log_batches.opening(self.name, cursor, recovered=has_resumed)
        )

    def _to_page(self, entries: Sequence[Entry]) -> Batch:
        # Clients that reconnect together ask for the same events.
        span = (entries[0].position, entries[-1].position)
        if self._joined is None or self._joined[0] != span:
            self._joined = span, log_batches.from_events(entries)
        return self._joined[1]
