"""A stream's connection after the hand-over: sending, pending data, the end.

Only the hub's owner uses it, and nothing else writes to the connection. Nothing blocks.
"""

import errno
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from flask_sse import _syscalls
from flask_sse._history import Position
from flask_sse._subscriber import Batch
from flask_sse._visit import CLIENT, OVERFLOW, Visit

_LAST_CHUNK: Final = b"0\r\n\r\n"
_JOIN_UP_TO: Final = 1 << 16
_MOST_PARTS: Final = 512


class Terms(NamedTuple):
    """The values that all streams of an application share."""

    opening: bytes
    """The first frames of a stream."""
    rejection: Callable[[], bytes]
    """Makes the frames for a client that is rejected."""
    limit: int
    """Bytes that may wait for a client; if nothing waits, a batch of any size is accepted."""
    ended: Callable[[Sequence[Callable[[], object]]], None]
    """Called once for each connection, with its `callbacks`, when it has been closed."""


class Connection:
    """One client's connection.

    :param descriptor: The connection's descriptor, which this object owns.
    :param head: The head of the response, which has not been sent yet.
    :param chunked: Whether the body is sent in chunks (RFC 9112, section 7.1).
    :param callbacks: Functions to call when the stream has ended.
    :param cursor: The position in the channel's log that the client sent.
    :param visit: Sends the signals of this stream, if they have receivers.
    """

    __slots__ = (
        "_callbacks",
        "_head",
        "_pending",
        "_sent",
        "_terms",
        "_visit",
        "_waiting",
        "channel",
        "chunked",
        "commented",
        "cursor",
        "descriptor",
        "events",
        "is_closing",
        "is_gone",
        "overflowed",
        "reason",
        "size",
    )

    def __init__(
        self,
        descriptor: int,
        head: bytes,
        terms: Terms,
        *,
        chunked: bool,
        callbacks: Sequence[Callable[[], object]],
        cursor: Position | None = None,
        visit: Visit | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.chunked = chunked
        self.channel = b""
        self.commented = 0.0
        self.cursor = cursor
        """Its position in the log while it is not live; `None` also if it starts at the top."""
        self.is_gone = False
        self.is_closing = False
        self.overflowed = False
        self.reason = CLIENT
        """Why the stream ends; the default is that the client left."""
        self.events = 0
        """How many events were sent, without those that its channel still counts."""
        self.size = 0
        """How many bytes of the body were sent or are waiting; counted in the same way."""
        self._visit = visit
        self._head: bytes | None = head
        self._terms = terms
        self._callbacks = callbacks
        # Data that the socket has not accepted yet; `_sent` bytes of the first part have been sent.
        self._waiting: deque[bytes] | None = None
        self._sent = 0
        self._pending = 0

    @property
    def is_open(self) -> bool:
        """Whether the first bytes have been sent to the client."""
        return self._head is None

    @property
    def is_lagging(self) -> bool:
        """Whether data is waiting for the client."""
        return self._waiting is not None

    def open(self, frames: bytes = b"") -> None:
        """Send the head and the stream's first bytes.

        :param frames: More frames to send right after them.
        """
        self._send_first(self._terms.opening + frames)
        if self._visit is not None:
            self._visit.opened()

    def reject(self) -> None:
        """Answer with a stream that ends at once and says when to reconnect."""
        if not self.is_open:
            self._send_first(self._terms.rejection())
        self.finish()

    def send(self, batch: Batch) -> None:
        """Send a batch, or as much of it as the socket accepts."""
        self._send(self._framed(batch))
        if not self.is_gone:
            self.events += len(batch.payloads)

    def _send(self, data: bytes) -> None:
        if self.is_gone:
            return
        self.size += len(data)
        if self._waiting is not None:
            self._keep(data)
            return
        sent = _syscalls.send(self.descriptor, data, len(data), _syscalls.FLAGS)
        if sent != len(data):
            self.keep_rest(data, sent)

    def keep_rest(self, data: bytes, sent: int) -> None:
        """Keep the part of *data* that `_syscalls.send` has not sent.

        :param sent: The number of bytes sent; -1 for a failure, whose cause is then checked.
        """
        self._waiting = deque([data])
        self._sent = max(sent, 0)
        self._pending = len(data) - self._sent
        if sent < 0:
            self.flush()

    def flush(self) -> None:
        """Send waiting data, as much as the socket accepts."""
        while self._waiting:
            data = self._first_part(self._waiting)
            sent = _syscalls.send_rest(self.descriptor, data, self._sent)
            if sent < 0:
                if _syscalls.last_error() not in (errno.EAGAIN, errno.EINTR):
                    self.is_gone = True
                return
            self._sent += sent
            self._pending -= sent
            if self._sent == len(data):
                self._waiting.popleft()
                self._sent = 0
        self._waiting = None

    def finish(self) -> None:
        """End the response; waiting data is sent first."""
        self.is_closing = True
        if self._waiting is not None:
            # The limit does not apply here: the waiting data may already have reached it.
            self._waiting.append(_LAST_CHUNK if self.chunked else b"")
        elif self.chunked:
            self._send(_LAST_CHUNK)

    def close(self) -> None:
        """Close the connection, even if data is waiting."""
        descriptor, self.descriptor = self.descriptor, -1
        # Another connection may have this number by now.
        if descriptor >= 0:
            self._waiting = None
            self.is_gone = True
            _syscalls.close_socket(descriptor)
            self._terms.ended(self._callbacks)
            if self._visit is not None:
                self._visit.count(self.events, max(self.size - self._pending, 0))
                self._visit.ended(OVERFLOW if self.overflowed else self.reason)

    def _send_first(self, frames: bytes) -> None:
        head, self._head = self._head, None
        assert head is not None
        self.size -= len(head)
        self._send(head + self._framed(Batch((), frames)))

    def _framed(self, batch: Batch) -> bytes:
        return batch.chunk if self.chunked else batch.frames

    def _keep(self, data: bytes) -> None:
        assert self._waiting is not None
        if self._pending + len(data) > self._terms.limit:
            self.overflowed = self.is_gone = True
            self.size -= len(data)
            return
        self._waiting.append(data)
        self._pending += len(data)

    def _first_part(self, waiting: "deque[bytes]") -> bytes:
        """Return the data to send first, with small parts joined: one call per part is slow."""
        data = waiting[0]
        if len(waiting) == 1 or len(data) - self._sent >= _JOIN_UP_TO:
            return data
        parts = [data[self._sent :]]
        size = len(parts[0])
        for part in islice(waiting, 1, _MOST_PARTS):
            size += len(part)
            if size > _JOIN_UP_TO:
                break
            parts.append(part)
        if len(parts) == 1:
            return data
        for _ in parts:
            waiting.popleft()
        waiting.appendleft(b"".join(parts))
        self._sent = 0
        return waiting[0]
