"""What waits for one client, within its bound.

One end belongs to the hub, which never blocks here: `confirm`, `offer`, `end`. The
other belongs to the one thread or greenlet that serves the client: `wait_confirmed`,
`take`. Each counter has one writer. The list of what waits is only appended to by the
one end and only emptied, of what it has copied, by the other, so it needs no lock.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from flask_sse import _gevent
from flask_sse._history import Position

_LOOK_AGAIN: Final = 0.1


class Batch:
    """What Redis has sent for one channel at one time, decoded and encoded once.

    :param payloads: The events as they are stored.
    :param frames: The events as an event stream carries them, joined.
    """

    __slots__ = ("_chunk", "frames", "payloads", "time")

    def __init__(self, payloads: Sequence[bytes], frames: bytes) -> None:
        self.payloads = payloads
        self.frames = frames
        self.time = time.monotonic()
        self._chunk: bytes | None = None

    @property
    def chunk(self) -> bytes:
        """The frames as one chunk of an HTTP/1.1 message (RFC 9112, section 7.1)."""
        if self._chunk is None:
            self._chunk = b"%x\r\n%b\r\n" % (len(self.frames), self.frames)
        return self._chunk


class Subscriber:
    """The batches that wait for one client.

    :param limit: Bytes that may wait. A client that lags behind by more is disconnected:
        whatever waits is dropped, and nothing more comes. A client for which nothing
        waits gets its batch however large that is.
    """

    __slots__ = (
        "_confirmed",
        "_ended",
        "_gate",
        "_handed",
        "_offered",
        "_taken",
        "_waiting",
        "cursor",
        "error",
        "limit",
        "overflowed",
        "reason",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._offered = 0
        self._taken = 0
        self._handed = 0
        self._confirmed = False
        self._ended = False
        self.overflowed = False
        self.error: Exception | None = None
        self.reason = "client"
        """Why it has ended, for the signals."""
        self.cursor: Position | None = None
        """Where a follower is in the log; `None` for one that is live, or starts at the top."""
        # A list and a lock, since a queue of gevent's takes 2.8 KiB: of 17 for a client.
        self._waiting: list[Batch] = []
        # Locked as long as there is nothing to wake up for.
        self._gate = threading.Lock()
        self._gate.acquire()

    @property
    def is_confirmed(self) -> bool:
        """Whether Redis has confirmed the subscription."""
        return self._confirmed

    @property
    def pending(self) -> int:
        """How many bytes wait, those that the server is sending included."""
        return self._offered - self._taken

    def confirm(self) -> None:
        """Tell the client that Redis has confirmed its subscription."""
        self._confirmed = True
        self._open_gate()

    def offer(self, batch: Batch) -> bool:
        """Leave a batch for the client; `False` if the client is disconnected instead."""
        size = len(batch.frames)
        pending = self._offered - self._taken
        if pending and pending + size > self.limit:
            self._cut_off()
            return False
        self._offered += size
        self._waiting.append(batch)
        self._open_gate()
        return True

    def put(self, batch: Batch) -> None:
        """Leave a batch for the client, whatever waits for it."""
        self._offered += len(batch.frames)
        self._waiting.append(batch)
        self._open_gate()

    def end(self) -> None:
        """Let the client know that nothing comes after what waits for it."""
        self._ended = True
        self._open_gate()

    def wait_confirmed(self, timeout: float) -> bool:
        """Wait *timeout* seconds for the confirmation; `False` if none has come."""
        self._wait(lambda: self._confirmed or self._ended, timeout)
        return self._confirmed and not self._ended

    def take(self, timeout: float | None) -> list[Batch] | None:
        """Wait for what the client gets next.

        What was taken before is counted as waiting until now: only now is it known
        that the server has got rid of it.

        :param timeout: Seconds, or `None` to wait without a bound.
        :return: all that waits; an empty list when the time is over; `None` at the end.
        """
        self._taken += self._handed
        self._wait(self.is_waiting, timeout)
        batches = self._waiting[:]
        del self._waiting[: len(batches)]
        self._handed = sum([len(batch.frames) for batch in batches])
        return None if self._ended and not batches else batches

    def has_ended(self) -> bool:
        """Whether nothing more comes."""
        return self._ended

    def is_waiting(self) -> bool:
        """Whether something waits, the end included."""
        return bool(self._waiting) or self._ended

    def _wait(self, condition: Callable[[], bool], timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not condition():
            # What opened the gate may have been taken since, so the condition decides.
            left = -1 if deadline is None else max(0, deadline - time.monotonic())
            if _gevent.crosses_threads():
                left = _LOOK_AGAIN if left < 0 else min(left, _LOOK_AGAIN)
            if not self._gate.acquire(timeout=left) and _is_over(deadline):
                return

    def _open_gate(self) -> None:
        if self._gate.locked():
            # The hub and the caretaker may both have found it locked.
            with contextlib.suppress(RuntimeError):
                self._gate.release()

    def _cut_off(self) -> None:
        self.overflowed = True
        self._waiting = []
        self.end()


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


class Follower(Subscriber):
    """The batches that wait for one client of a channel with history.

    When it lags behind it is not disconnected: the hub offers it no more until nothing waits, and
    then goes on from the log.

    :param cursor: The position that the client has named.
    :param is_strict: Whether it ends with a :exc:`LookupError` when the log has a gap.
    """

    __slots__ = ("is_behind", "is_strict", "refill")

    def __init__(
        self, limit: int, cursor: Position | None = None, *, is_strict: bool = False
    ) -> None:
        super().__init__(limit)
        self.cursor = cursor
        self.is_behind = False
        """Whether a batch has been left out, since which the hub has not gone on."""
        self.is_strict = is_strict
        self.refill: Callable[[], None] | None = None
        """Tells the hub, from any thread, that nothing waits any more."""

    def offer(self, batch: Batch) -> bool:
        """Leave a batch for the client, or note that there is no room for it."""
        pending = self.pending
        if self.is_behind or (pending and pending + len(batch.frames) > self.limit):
            self.is_behind = True
            return True
        return super().offer(batch)

    def take(self, timeout: float | None) -> list[Batch] | None:
        """Wait for what the client gets next, as the other subscribers do."""
        self._taken += self._handed
        self._handed = 0
        # The hub, which sets these first and then looks for what is pending, misses nothing.
        if (self.is_behind or self.cursor is not None) and self.refill and not self._waiting:
            self.refill()
        return super().take(timeout)

    def fail(self, reason: str) -> None:
        """End it, because the log has a gap."""
        self.error = LookupError(
            f"events may be missing: {reason}; read the current state, and listen from there on"
        )
        self.end()
