"""The data that waits for one client, up to a limit.

The hub calls the methods of a listener, and never blocks there. The thread or greenlet that
serves the client calls `wait_confirmed` and `take`. Each counter has one writer. The list of
waiting batches needs no lock: the hub only appends to it, and the other side only removes
batches that it has copied.
"""

from collections.abc import Callable
from typing import Self

from flask_sse._callbacks.stream_signals import CLIENT, END
from flask_sse._event.channel_name import Key
from flask_sse._event.revocation import Identity
from flask_sse._hub.batch import Batch
from flask_sse._log.composite_id import Marks
from flask_sse._log.position import Cursor
from flask_sse._system.gate import Gate


class Subscriber:
    """The batches that wait for one client.

    :param limit: Bytes that may wait. A client that lags behind by more is disconnected:
        waiting batches are dropped, and no more batches follow. If nothing waits, a batch of
        any size is accepted.
    :param resume_after: The position that the client sent.
    :param gate: Where the reader waits, if it waits for several subscribers at once.
    """

    __slots__ = (
        "_confirmed",
        "_ended",
        "_gate",
        "_handed",
        "_offered",
        "_taken",
        "_waiting",
        "channel",
        "end_by",
        "error",
        "identity",
        "is_behind",
        "limit",
        "marks",
        "overflowed",
        "reason",
        "resume_after",
    )

    def __init__(
        self,
        limit: int,
        resume_after: Cursor | None = None,
        marks: Marks = (),
        *,
        gate: Gate | None = None,
    ) -> None:
        self.limit = limit
        self.marks = marks
        self.channel: Key = b""
        self.resume_after = resume_after
        self.identity: Identity | None = None
        """The client's name, if it has one."""
        self.end_by: float | None = None
        """The time at which the stream ends at the latest, if there is a limit."""
        self.is_behind = False
        self._offered = 0
        self._taken = 0
        self._handed = 0
        self._confirmed = False
        self._ended = False
        self.overflowed = False
        self.error: Exception | None = None
        self.reason = CLIENT
        """Why the stream ended, for the signals."""
        self._waiting: list[Batch] = []
        self._gate = gate or Gate()

    @property
    def whole(self) -> Self:
        """Itself."""
        return self

    @property
    def descriptor(self) -> int:
        """Always -1: the client's socket belongs to the server."""
        return -1

    @property
    def is_open(self) -> bool:
        """Whether Redis has confirmed the subscription."""
        return self._confirmed

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be given to the client; a subscriber only collects it."""
        return False

    @property
    def is_lagging(self) -> bool:
        """Always `False`: the server sends what waits."""
        return False

    @property
    def is_ready(self) -> bool:
        """Whether the client has taken everything."""
        return not self.pending

    @property
    def is_finishing(self) -> bool:
        """Always `False`: the server sends what waits."""
        return False

    @property
    def pending(self) -> int:
        """How many bytes wait, including those that the server is sending."""
        return self._offered - self._taken

    def open(self) -> bool:
        """Tell the client that Redis has confirmed its subscription."""
        self._confirmed = True
        self._gate.open()
        return True

    def offer(self, batch: Batch) -> bool:
        """Add a batch for the client; return `False` if the client is disconnected instead."""
        return self.push(batch)

    def push(self, batch: Batch) -> bool:
        """Add a batch for the client; return `False` if the client is disconnected instead."""
        if not self.has_room(batch):
            self._overflow()
            return False
        self._offered += len(batch.frames)
        self._waiting.append(batch)
        self._gate.open()
        return True

    def has_room(self, batch: Batch) -> bool:
        """Whether a batch may be added."""
        pending = self._offered - self._taken
        return not pending or pending + len(batch.frames) <= self.limit

    def give(self, batch: Batch) -> bool:
        """Add a batch for the client, regardless of the limit; the first one opens the stream."""
        self._offered += len(batch.frames)
        self._waiting.append(batch)
        # The beginning of a stream waits, together with the first page.
        return self.open()

    def note_gap(self, reason: str) -> bool:
        """Continue after a gap."""
        return True

    def note_end(self) -> bool:
        """End the stream with its channel."""
        self.end(END)
        return False

    def note_live(self) -> None:
        """Do nothing: a subscriber is the same before and after."""

    def when_drained(self, tell: Callable[[], None]) -> None:
        """Do nothing: nobody waits until the client has taken everything."""

    def end(self, reason: str | None = None, error: Exception | None = None) -> bool:
        """Mark the end: no more batches follow after those that wait."""
        if reason is not None:
            self.reason = reason
        if error is not None:
            self.error = error
        self._ended = True
        self._gate.open()
        return True

    def close(self) -> None:
        """Do nothing: the server closes the client's socket."""

    def wait_confirmed(self, timeout: float) -> bool:
        """Wait *timeout* seconds for the confirmation; return `False` if there was none."""
        self._gate.wait(lambda: self._confirmed or self._ended, timeout)
        # The log may be short enough to be here up to the channel's end already.
        return self._confirmed and (not self._ended or self.reason == END)

    def take(self, timeout: float | None) -> list[Batch] | None:
        """Wait for the next batches.

        The batches of the previous call count as waiting until this call: only now is it
        known that the server has sent them.

        :param timeout: Seconds, or `None` to wait without a limit.
        :return: all waiting batches; an empty list after the timeout; `None` at the end.
        """
        self._taken += self._handed
        self._gate.wait(self.is_waiting, timeout)
        batches = self._waiting[:]
        del self._waiting[: len(batches)]
        self._handed = sum([len(batch.frames) for batch in batches])
        return None if self._ended and not batches else batches

    def has_ended(self) -> bool:
        """Whether no more batches will be added."""
        return self._ended

    def is_waiting(self) -> bool:
        """Whether something waits, including the end."""
        return bool(self._waiting) or self._ended

    def _overflow(self) -> None:
        self.overflowed = True
        self._waiting = []
        self.end()


class Follower(Subscriber):
    """The batches that wait for one client of a channel with history.

    When it lags behind, it is not disconnected: the hub offers it no more batches until nothing
    waits, and then continues from the log.

    :param resume_after: The position that the client sent.
    :param is_strict: Whether it ends with a :exc:`LookupError` if the log has a gap.
    :param gate: Where the reader waits, like that of other subscribers.
    """

    __slots__ = ("is_strict", "refill")

    def __init__(
        self,
        limit: int,
        resume_after: Cursor | None = None,
        marks: Marks = (),
        *,
        is_strict: bool = False,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(limit, resume_after, marks, gate=gate)
        self.is_strict = is_strict
        self.refill: Callable[[], None] | None = None
        """Tells the hub, from any thread, that nothing is waiting."""

    def when_drained(self, tell: Callable[[], None]) -> None:
        """Call a function, from any thread, when it is behind and nothing is waiting."""
        self.refill = tell

    def offer(self, batch: Batch) -> bool:
        """Add a batch for the client, or note that there is no room for it."""
        if self.is_behind or not self.has_room(batch):
            self.is_behind = True
            return True
        return self.push(batch)

    def take(self, timeout: float | None) -> list[Batch] | None:
        """Wait for the next batches, like other subscribers."""
        self._taken += self._handed
        self._handed = 0
        # The hub sets this first and then checks what is pending, so it misses nothing.
        if self.is_behind and self.refill and not self._waiting:
            self.refill()
        return super().take(timeout)

    def note_gap(self, reason: str) -> bool:
        """Continue after a gap, or end with an error; return `False` in this case."""
        if self.is_strict:
            text = (
                f"events may be missing: {reason}; read the current state, and listen from there on"
            )
            self.end(error=LookupError(text))
        return not self.is_strict
