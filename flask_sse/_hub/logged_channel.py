"""A channel with history: where its listeners are in the log, and how they move forward.

Only the hub's owner uses it. Nothing blocks except the `pause` function that is passed in.

A listener is either live and gets every batch, or it is behind: it has a cursor, and gets the
events after it page by page, from the ring or from the log, until it reaches the channel's
position. A listener that resumes is behind at first, and a listener that does not read falls
behind. So no more than one page waits for a listener.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from flask_sse._channel import Channel, Listener
from flask_sse._connection import Connection
from flask_sse._history import (
    OFFSET_AT_TOP,
    OFFSET_BEFORE_LAST,
    PAGE_BYTES,
    UNKNOWN,
    Entry,
    Position,
)
from flask_sse._page import TRIMMED, Page
from flask_sse._ring import Ring
from flask_sse._subscriber import Batch, Follower, Subscriber

_HELD_BYTES: Final = 1 << 20


class Foreign(NamedTuple):
    """An event that is not in a log of this Redis database."""

    frame: bytes
    payload: bytes


Decode = Callable[[bytes], Entry | Foreign | None]
"""Decodes an event that Redis has sent; returns `None` if it can't be decoded."""


class LoggedChannel(Channel):
    """A channel with a log in Redis.

    :param sends_latest: Whether a listener without a cursor gets the newest event.
    :param note_question: Called when :meth:`fill_after` or :meth:`page_after` returns an offset.
    :param room: Returns how many bytes of events may be kept in memory.
    """

    __slots__ = (
        "_again",
        "_behind",
        "_covered",
        "_decode",
        "_fill_wanted",
        "_filling",
        "_first",
        "_held",
        "_held_size",
        "_joined",
        "_note_question",
        "_page_asked",
        "_pause",
        "_ring",
        "_sends_latest",
        "_wanting",
        "heard",
        "position",
        "reset_reason",
        "troubled",
    )

    def __init__(
        self,
        name: bytes,
        decode: Decode,
        note_question: Callable[["LoggedChannel"], None],
        pause: Callable[[], None],
        room: Callable[[], int],
        *,
        sends_latest: bool,
    ) -> None:
        super().__init__(name)
        self.position: Position | None = None
        """The last event that the live listeners have received; `None` before the first answer."""
        self.heard = time.monotonic()
        """The last time at which the log was known to have no newer events."""
        self.troubled: list[Listener] = []
        """Listeners that are gone or have failed; the owner must drop them."""
        self.reset_reason = ""
        """Why the log does not continue at the position of the live listeners; for a warning."""
        self._decode = decode
        self._note_question = note_question
        self._pause = pause
        self._sends_latest = sends_latest
        self._ring = Ring(room)
        self._behind: dict[Listener, None] = {}
        self._wanting: dict[Listener, None] = {}
        self._filling = False
        self._first: Page | None = None
        self._fill_wanted = False
        self._again = False
        self._page_asked = False
        self._held: list[bytes] = []
        self._held_size = 0
        # How many of the held payloads arrived before the log was asked.
        self._covered = 0
        self._joined: tuple[tuple[Position, Position], Batch] | None = None

    def __bool__(self) -> bool:
        return bool(self._behind) or super().__bool__()

    @property
    def lagging(self) -> int:
        """How many clients have not taken everything."""
        return len(self._behind)

    def __iter__(self) -> Iterator[Listener]:
        """Iterate over a snapshot of the listeners."""
        return iter([*super().__iter__(), *self._behind])

    # The listeners

    def confirm(self) -> list[Connection]:
        """Continue with the listeners that have waited for the subscription."""
        if not self._filling:
            self._open_waiting() if self.position is not None else self.fill()
        return []

    def verify(self) -> None:
        """Make sure that nothing was missed, because the subscription is new."""
        self.fill()

    def place(self, connection: Connection) -> None:
        """Add a connection to those that are live, or to those that are behind."""
        self._discard_connection(connection)
        if not connection.is_lagging and connection.cursor is None:
            super().place(connection)
            return
        if connection.cursor is None:
            connection.cursor = self.position
        self._behind[connection] = None
        self._advance(connection)

    def discard(self, listener: Listener) -> None:
        """Forget a listener, if it is known."""
        self._behind.pop(listener, None)
        self._wanting.pop(listener, None)
        super().discard(listener)

    def refill(self, follower: Follower) -> None:
        """Continue with a follower that has taken everything."""
        if follower in self._behind:
            self._advance(follower)

    def _open_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for listener in waiting:
            if listener.cursor is None:
                self._open_at_once(listener)
            else:
                self._behind[listener] = None
                self._advance(listener)
            self._pause()

    def _open_at_once(self, listener: Listener) -> None:
        assert self.position is not None
        cursor = (self._ring.before_last if self._sends_latest else None) or self.position
        self._give(listener, self._opening(cursor, recovered=False))
        listener.cursor = cursor
        self._behind[listener] = None
        self._advance(listener)

    # What Redis sends

    def receive(self, payloads: Sequence[bytes]) -> None:
        """Send payloads from Redis to the live listeners."""
        if self._filling or self.position is None:
            self._hold(payloads)
        else:
            self._receive(payloads, 0)

    def _receive(self, payloads: Sequence[bytes], covered: int) -> None:
        assert self.position is not None
        frames: list[bytes] = []
        sound: list[bytes] = []
        before = self.position
        for number, payload in enumerate(payloads, 1):
            event = self._decode(payload)
            if isinstance(event, Foreign):
                frames.append(event.frame)
                sound.append(event.payload)
            elif event is None or self._ring.knows(event.position):
                continue
            elif number <= covered and event.position.offset <= self.position.offset:
                # The log was asked after this: the event was sent, or was lost with its log.
                continue
            elif self._is_next(event):
                self._accept(event, frames, sound)
            else:
                # There is a gap, another log, or an event that must be fetched: read the log.
                self._send_events(before, frames, sound)
                self.fill()
                self._hold(payloads[number:])
                return
        self._send_events(before, frames, sound)

    def _is_next(self, entry: Entry) -> bool:
        position = self.position
        assert position is not None
        return (
            entry.payload is not None
            and entry.position.offset == position.offset + 1
            and entry.previous == position.nonce
            and entry.position.epoch == position.epoch
        )

    def _accept(self, entry: Entry, frames: list[bytes], sound: list[bytes]) -> None:
        self.position = entry.position
        self.heard = time.monotonic()
        self._ring.append(entry)
        if entry.payload is not None:
            frames.append(entry.frame)
            sound.append(entry.payload)

    def _hold(self, payloads: Sequence[bytes]) -> None:
        self._held += payloads
        self._held_size += sum(map(len, payloads))
        if self._held_size > _HELD_BYTES:
            # They can be read from the log.
            self._held, self._held_size, self._covered = [], 0, 0
            self._again = True

    def _send_events(
        self, before: Position, frames: Sequence[bytes], sound: Sequence[bytes]
    ) -> None:
        if frames:
            self._broadcast(before, Batch(sound, b"".join(frames)))

    def _broadcast(self, before: Position, batch: Batch) -> None:
        self.troubled += self.send(batch, self._pause)
        for follower in [*self._subscribers]:
            if isinstance(follower, Follower) and follower.is_behind:
                follower.is_behind = False
                del self._subscribers[follower]
                follower.cursor = before
                self._behind[follower] = None
                # It may have taken everything in the meantime.
                self._advance(follower)

    # What the log says

    def fill(self) -> None:
        """Request the events after the position from the log."""
        if self._filling:
            self._again = True
            return
        self._filling = self._fill_wanted = True
        self._note_question(self)

    def fill_after(self) -> int | None:
        """Return the offset after which to read the log for the channel itself, if needed."""
        if not self._fill_wanted:
            return None
        self._fill_wanted = False
        self._covered = len(self._held)
        if self._sends_latest:
            # The newest event is also needed after a reset, and earlier events are not kept.
            return OFFSET_BEFORE_LAST
        return OFFSET_AT_TOP if self.position is None else self.position.offset

    def page_after(self) -> int | None:
        """Return the offset after which to read the log for listeners, if needed."""
        if not self._wanting or self._page_asked:
            return None
        self._page_asked = True
        cursors = [listener.cursor or UNKNOWN for listener in self._wanting]
        epoch = "" if self.position is None else self.position.epoch
        # Any page shows that an id is from another log.
        offsets = [cursor.offset for cursor in cursors if cursor.epoch == epoch]
        return min(offsets or [cursor.offset for cursor in cursors])

    def ask_again(self, *, is_fill: bool) -> None:
        """Repeat a question that has failed."""
        if is_fill:
            self._fill_wanted = True
        else:
            self._page_asked = False
        self._note_question(self)

    def take_fill(self, page: Page) -> None:
        """Process the answer to :meth:`fill_after`."""
        self._filling = False
        self._joined = None
        self.heard = time.monotonic()
        again, self._again = self._again, False
        if self.position is None and self._first is None and not self._sends_latest:
            # Redis may have sent this answer before an event that it published earlier. When
            # it answers again, it has sent that event too.
            self._first = page
            self.fill()
            return
        if self.position is None:
            self._start(self._first or page)
        else:
            found = page.find(self.position)
            if isinstance(found, str) or found is None:
                self._reset_all(found or TRIMMED, page)
            else:
                self._catch_up(self.position, found)
        if self._sends_latest and not page.entries:
            # It has expired in Redis.
            self._ring.clear()
        if again or self.position != page.top:
            self.fill()
            return
        # There may be more channels now.
        self._ring.shrink()
        held, self._held, self._held_size = self._held, [], 0
        if held:
            self._receive(held, self._covered)
        if not self._filling:
            self._open_waiting()
            for listener in [*self._behind]:
                if listener not in self._wanting:
                    self._advance(listener)
                    self._pause()

    def take_page(self, page: Page) -> None:
        """Process the answer to :meth:`page_after`."""
        self._page_asked = False
        self._ring.extend_left(page.entries, self.position)
        wanting, self._wanting = self._wanting, {}
        for listener in wanting:
            # If a comment is waiting for a connection, it continues after the comment is sent.
            if listener in self._behind and not _is_stuck(listener):
                self._judge(listener, page)
                self._pause()

    def _start(self, page: Page) -> None:
        # The latest event is always sent, and only that event is kept.
        held = None if self._sends_latest else self._before_held(page.top)
        if held is None:
            self.position = page.top
            self._ring.begin(page)
        else:
            self.position = held
        # This happens before newer events are sent.
        for listener in [*self._waiting]:
            if listener.cursor is None:
                del self._waiting[listener]
                self._open_at_once(listener)

    def _before_held(self, top: Position) -> Position | None:
        """Return the position before the first event that arrived after the subscription.

        `publish` has counted this process for these, so listeners that start at the top get them.
        """
        for payload in self._held:
            event = self._decode(payload)
            if isinstance(event, Entry):
                epoch, offset, _ = event.position
                is_known = epoch == top.epoch and offset <= top.offset
                return Position(epoch, offset - 1, event.previous) if is_known else None
        return None

    def _catch_up(self, before: Position, entries: Sequence[Entry]) -> None:
        frames: list[bytes] = []
        sound: list[bytes] = []
        for entry in entries:
            self._accept(entry, frames, sound)
        self._send_events(before, frames, sound)

    def _reset_all(self, reason: str, page: Page) -> None:
        self.reset_reason = reason
        before, self.position = self.position, page.top
        self._ring.begin(page)
        for subscriber in [*self._subscribers]:
            if isinstance(subscriber, Follower) and subscriber.is_strict:
                subscriber.fail(reason)
                self.troubled.append(subscriber)
        start = self._start_after_reset(page.top)
        batch = self._reset_event(reason, start)
        if start != page.top and (newest := self._ring.after(start)):
            latest = self._join(newest)
            batch = Batch(latest.payloads, batch.frames + latest.frames)
        # A follower without room for it keeps its cursor, and learns about the reset later.
        self._broadcast(before or page.top, batch)

    def _judge(self, listener: Listener, page: Page) -> None:
        cursor, position = listener.cursor, self.position
        assert cursor is not None
        assert position is not None
        found = page.find(cursor)
        if found is None:
            self._want_page(listener)
        elif isinstance(found, str):
            self._reset(listener, found, page.top)
        elif (
            position.epoch != cursor.epoch
            or position.offset < cursor.offset
            or (position.offset == cursor.offset and position.nonce != cursor.nonce)
        ):
            # The log has continued without us, or differently.
            self.fill()
        else:
            # Events after the position are sent to all listeners at the same time.
            entries = found[: position.offset - cursor.offset]
            self._give_page(listener, entries)
            self._advance(listener)

    def _reset(self, listener: Listener, reason: str, top: Position) -> None:
        if isinstance(listener, Follower) and listener.is_strict:
            listener.fail(reason)
            self.troubled.append(listener)
            return
        assert listener.cursor is not None
        # A client that loses its connection between the two events resumes with its own id.
        start = self._start_after_reset(top)
        known = start if listener.cursor == UNKNOWN else listener.cursor
        self._open(listener, known, recovered=False)
        if _is_stuck(listener):
            return
        self._give(listener, self._reset_event(reason, start))
        listener.cursor = start
        self._advance(listener)

    def _start_after_reset(self, top: Position) -> Position:
        """Return where a stream continues after a reset: before the latest event, if it is sent."""
        before = self._ring.before_last if self._sends_latest and top == self.position else None
        return before or top

    # Listeners that are behind

    def _advance(self, listener: Listener) -> None:
        """Send a listener its next page, or make it live."""
        while listener in self._behind:
            position = self.position
            if position is None or self._filling:
                return
            if _is_stuck(listener):
                return
            cursor = listener.cursor
            assert cursor is not None
            if cursor == position:
                self._go_live(listener)
                return
            if isinstance(listener, Subscriber) and listener.pending:
                return
            entries = self._ring.after(cursor)
            if entries is None:
                self._want_page(listener)
                return
            self._give_page(listener, _within(entries, PAGE_BYTES))

    def _want_page(self, listener: Listener) -> None:
        self._wanting[listener] = None
        self._note_question(self)

    def _go_live(self, listener: Listener) -> None:
        del self._behind[listener]
        if listener.cursor is not None:
            self._open(listener, listener.cursor, recovered=True)
        listener.cursor = None
        if isinstance(listener, Connection):
            self.place(listener)
        else:
            self._subscribers[listener] = None

    def _give_page(self, listener: Listener, entries: Sequence[Entry]) -> None:
        cursor = listener.cursor
        assert cursor is not None
        self._open(listener, cursor, recovered=True)
        if not entries or _is_stuck(listener):
            return
        batch = self._join(entries)
        listener.cursor = entries[-1].position
        if batch.frames:
            self._give(listener, batch)
            if self.report is not None:
                self.report(self, batch, 1, replayed=True)

    def _join(self, entries: Sequence[Entry]) -> Batch:
        # Clients that reconnect together ask for the same events.
        span = (entries[0].position, entries[-1].position)
        if self._joined is None or self._joined[0] != span:
            payloads = [entry.payload for entry in entries if entry.payload is not None]
            frames = b"".join([entry.frame for entry in entries])
            self._joined = span, Batch(payloads, frames)
        return self._joined[1]

    def _open(self, listener: Listener, cursor: Position, *, recovered: bool) -> None:
        opened = listener.is_open if isinstance(listener, Connection) else listener.is_confirmed
        if not opened:
            self._give(listener, self._opening(cursor, recovered=recovered))

    def _give(self, listener: Listener, batch: Batch) -> None:
        if isinstance(listener, Subscriber):
            # The beginning of a stream waits, together with the first page.
            listener.put(batch)
            listener.confirm()
            return
        if listener.is_open:
            listener.send(batch)
        else:
            listener.open(batch.frames)
        if listener.is_gone:
            self.troubled.append(listener)

    def _opening(self, cursor: Position, *, recovered: bool) -> Batch:
        data = {"channel": self._text_name, "recovered": recovered}
        return Batch((), _frame("sse.open", data, cursor))

    def _reset_event(self, reason: str, top: Position) -> Batch:
        return Batch((), _frame("sse.reset", {"channel": self._text_name, "reason": reason}, top))

    @property
    def _text_name(self) -> str:
        return self.name.decode(errors="replace")


def _is_stuck(listener: Listener) -> bool:
    """Whether a connection has not accepted the last data, or is gone."""
    return isinstance(listener, Connection) and (listener.is_lagging or listener.is_gone)


def _frame(kind: str, data: object, position: Position) -> bytes:
    return f"event:{kind}\ndata:{json.dumps(data)}\nid:{position}\n\n".encode()


def _within(entries: Sequence[Entry], limit: int) -> Sequence[Entry]:
    """Return the first entries, up to the one that reaches the limit in bytes."""
    size = 0
    for number, entry in enumerate(entries, 1):
        size += len(entry.frame)
        if size >= limit:
            return entries[:number]
    return entries
