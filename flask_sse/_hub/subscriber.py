"""The data that waits for one client, up to a limit.

The hub calls `confirm`, `offer` and `end`, and never blocks there. The thread or greenlet that
serves the client calls `wait_confirmed` and `take`. Each counter has one writer. The list of
waiting batches needs no lock: the hub only appends to it, and the other side only removes
batches that it has copied.
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
    """The events that Redis has sent for one channel at one time, decoded and encoded once.

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
        waiting batches are dropped, and no more batches follow. If nothing waits, a batch of
        any size is accepted.
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
        """Why the stream ended, for the signals."""
        self.cursor: Position | None = None
        """A follower's position in the log; `None` if it is live, or starts at the top."""
        # A list and a lock, since a gevent queue takes 2.8 KiB, of 17 KiB for a client.
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
        """How many bytes wait, including those that the server is sending."""
        return self._offered - self._taken

    def confirm(self) -> None:
        """Tell the client that Redis has confirmed its subscription."""
        self._confirmed = True
        self._open_gate()

    def offer(self, batch: Batch) -> bool:
        """Add a batch for the client; return `False` if the client is disconnected instead."""
        size = len(batch.frames)
        pending = self._offered - self._taken
        if pending and pending + size > self.limit:
            self._overflow()
            return False
        self._offered += size
        self._waiting.append(batch)
        self._open_gate()
        return True

    def put(self, batch: Batch) -> None:
        """Add a batch for the client, regardless of the limit."""
        self._offered += len(batch.frames)
        self._waiting.append(batch)
        self._open_gate()

    def end(self) -> None:
        """Mark the end: no more batches follow after those that wait."""
        self._ended = True
        self._open_gate()

    def wait_confirmed(self, timeout: float) -> bool:
        """Wait *timeout* seconds for the confirmation; return `False` if there was none."""
        self._wait(lambda: self._confirmed or self._ended, timeout)
        return self._confirmed and not self._ended

    def take(self, timeout: float | None) -> list[Batch] | None:
        """Wait for the next batches.

        The batches of the previous call count as waiting until this call: only now is it
        known that the server has sent them.

        :param timeout: Seconds, or `None` to wait without a limit.
        :return: all waiting batches; an empty list after the timeout; `None` at the end.
        """
        self._taken += self._handed
        self._wait(self.is_waiting, timeout)
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

    def _wait(self, condition: Callable[[], bool], timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not condition():
            # The batch that opened the gate may have been taken since, so check the condition.
            left = -1 if deadline is None else max(0, deadline - time.monotonic())
            if _gevent.crosses_threads():
                left = _LOOK_AGAIN if left < 0 else min(left, _LOOK_AGAIN)
            if not self._gate.acquire(timeout=left) and _is_over(deadline):
                return

    def _open_gate(self) -> None:
        if self._gate.locked():
            # Two threads may have found it locked.
            with contextlib.suppress(RuntimeError):
                self._gate.release()

    def _overflow(self) -> None:
        self.overflowed = True
        self._waiting = []
        self.end()


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


class Follower(Subscriber):
    """The batches that wait for one client of a channel with history.

    When it lags behind, it is not disconnected: the hub offers it no more batches until nothing
    waits, and then continues from the log.

    :param cursor: The position that the client sent.
    :param is_strict: Whether it ends with a :exc:`LookupError` if the log has a gap.
    """

    __slots__ = ("is_behind", "is_strict", "refill")

    def __init__(
        self, limit: int, cursor: Position | None = None, *, is_strict: bool = False
    ) -> None:
        super().__init__(limit)
        self.cursor = cursor
        self.is_behind = False
        """Whether a batch was left out, and the hub has not continued since."""
        self.is_strict = is_strict
        self.refill: Callable[[], None] | None = None
        """Tells the hub, from any thread, that nothing is waiting."""

    def offer(self, batch: Batch) -> bool:
        """Add a batch for the client, or note that there is no room for it."""
        pending = self.pending
        if self.is_behind or (pending and pending + len(batch.frames) > self.limit):
            self.is_behind = True
            return True
        return super().offer(batch)

    def take(self, timeout: float | None) -> list[Batch] | None:
        """Wait for the next batches, like other subscribers."""
        self._taken += self._handed
        self._handed = 0
        # The hub sets these first and then checks what is pending, so it misses nothing.
        if (self.is_behind or self.cursor is not None) and self.refill and not self._waiting:
            self.refill()
        return super().take(timeout)

    def fail(self, reason: str) -> None:
        """End it, because the log has a gap."""
        self.error = LookupError(
            f"events may be missing: {reason}; read the current state, and listen from there on"
        )
        self.end()
