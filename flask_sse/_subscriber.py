"""What waits for one client, within its bound.

One end belongs to the hub, which never blocks here: `confirm`, `offer`, `end`. The
other belongs to the one thread or greenlet that serves the client:
`wait_confirmed`, `take`. Each counter has one writer, so neither end needs a lock.
"""

import queue
import time
from collections.abc import Sequence
from typing import Final


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


_CONFIRMED: Final = Batch((), b"")
_END: Final = None


class Subscriber:
    """The batches that wait for one client.

    :param limit: Bytes that may wait. Who lags behind by more is cut off: what
        waits is dropped, and nothing more comes. A client for which nothing
        waits gets its batch however large that is.
    """

    __slots__ = ("_handed", "_limit", "_offered", "_taken", "_waiting", "overflowed")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._offered = 0
        self._taken = 0
        self._handed = 0
        # Looked up now and not at import: gevent may have patched the module in between.
        self._waiting: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self.overflowed = False

    def confirm(self) -> None:
        """Tell the client that Redis has confirmed its subscription."""
        self._waiting.put(_CONFIRMED)

    def offer(self, batch: Batch) -> bool:
        """Leave a batch for the client; `False` says that this one is cut off."""
        size = len(batch.frames)
        pending = self._offered - self._taken
        if pending and pending + size > self._limit:
            self._cut_off()
            return False
        self._offered += size
        self._waiting.put(batch)
        return True

    def end(self) -> None:
        """Let the client know that nothing comes after what waits for it."""
        self._waiting.put(_END)

    def wait_confirmed(self, timeout: float) -> bool:
        """Wait *timeout* seconds for the confirmation; `False` if none has come."""
        try:
            return self._waiting.get(timeout=timeout) is not _END
        except queue.Empty:
            return False

    def take(self, timeout: float | None) -> list[Batch] | None:
        """Wait for what the client gets next.

        What was taken before is counted as waiting until now: only now is it known
        that the server has got rid of it.

        :param timeout: Seconds, or `None` to wait without a bound.
        :return: all that waits; an empty list when the time is over; `None` at the end.
        """
        self._taken += self._handed
        self._handed = 0
        waiting = self._waiting
        batches: list[Batch] = []
        try:
            batch = waiting.get(timeout=timeout)
            while batch is not _END:
                batches.append(batch)
                self._handed += len(batch.frames)
                batch = waiting.get_nowait()
        except queue.Empty:
            return batches
        if batches:
            waiting.put(_END)
        return batches or None

    def is_waiting(self) -> bool:
        """Whether something waits, the end included."""
        return not self._waiting.empty()

    def _cut_off(self) -> None:
        self.overflowed = True
        dropped, self._waiting = self._waiting, queue.SimpleQueue()
        dropped.put(_END)
        self._waiting.put(_END)
