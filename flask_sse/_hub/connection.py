"""A stream's connection after the hand-over: the beginning, sending, the end.

Only the hub's loop uses it, and nothing else writes to the connection. Nothing blocks.
"""

import errno
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Self

from flask_sse._callbacks.stream_signals import CLIENT, END, OVERFLOW, Visit
from flask_sse._event.channel_name import Key
from flask_sse._event.revocation import Identity
from flask_sse._hub.batch import Batch
from flask_sse._hub.outbox import Outbox
from flask_sse._log.composite_id import Marks
from flask_sse._log.position import Cursor
from flask_sse._system import forks, syscalls

_LAST_CHUNK: Final = b"0\r\n\r\n"


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
    :param resume_after: The position in the channel's log that the client sent.
    :param marks: The same for a stream of several channels.
    :param end_by: The time at which the stream ends at the latest, if there is a limit.
    :param identity: The client's name, if it has one.
    :param visit: Sends the signals of this stream, if they have receivers.
    """

    __slots__ = (
        "_callbacks",
        "_head",
        "_outbox",
        "_terms",
        "_visit",
        "channel",
        "chunked",
        "commented",
        "descriptor",
        "end_by",
        "events",
        "identity",
        "is_behind",
        "is_closing",
        "is_gone",
        "marks",
        "overflowed",
        "reason",
        "resume_after",
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
        resume_after: Cursor | None = None,
        marks: Marks = (),
        end_by: float | None = None,
        identity: Identity | None = None,
        visit: Visit | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.chunked = chunked
        self.channel: Key = b""
        self.marks = marks
        self.commented = 0.0
        self.resume_after = resume_after
        self.end_by = end_by
        self.identity = identity
        self.is_behind = False
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
        # There is one only while data waits: most clients accept everything at once.
        self._outbox: Outbox | None = None

    @property
    def whole(self) -> Self:
        """Itself."""
        return self

    @property
    def is_counted(self) -> bool:
        """Whether anybody is told how many events and bytes were sent."""
        return self._visit is not None

    @property
    def is_open(self) -> bool:
        """Whether the first bytes have been sent to the client."""
        return self._head is None

    @property
    def is_lagging(self) -> bool:
        """Whether data is waiting for the client."""
        return self._outbox is not None

    @property
    def is_blocked(self) -> bool:
        """Whether the client has not accepted the last data, or is gone."""
        return self._outbox is not None or self.is_gone

    @property
    def is_ready(self) -> bool:
        """Whether the client has accepted everything."""
        return not self.is_blocked

    @property
    def is_finishing(self) -> bool:
        """Whether the stream has ended, and data is waiting, which must be sent first."""
        return self.is_closing and self.is_lagging and not self.is_gone

    def open(self, frames: bytes = b"") -> bool:
        """Send the head and the stream's first bytes; return `False` if the client is gone.

        :param frames: More frames to send right after them.
        """
        self._send_first(self._terms.opening + frames)
        if self._visit is not None:
            self._visit.opened()
        return not self.is_gone

    def give(self, batch: Batch) -> bool:
        """Send a batch, at the beginning or later; return `False` if the client is gone."""
        return self.offer(batch) if self.is_open else self.open(batch.frames)

    def offer(self, batch: Batch) -> bool:
        """Send a batch; return `False` if the client is gone."""
        self.send(batch)
        return not self.is_gone

    def has_room(self, batch: Batch) -> bool:
        """Whether a batch may be sent: nothing else is waiting."""
        return not self.is_blocked

    def push(self, batch: Batch) -> bool:
        """Send a batch; return `False` if the client is gone."""
        return self.offer(batch)

    def note_gap(self, reason: str) -> bool:
        """Continue after a gap."""
        return True

    def note_end(self) -> bool:
        """End the stream with its channel."""
        self.end(END)
        return False

    def note_live(self) -> None:
        """Do nothing: a connection is the same before and after."""

    def end(self, reason: str, error: Exception | None = None) -> bool:
        """End the response, or answer with one that ends at once.

        :return: `False` if data is waiting, which must be sent first.
        """
        if not self.is_closing:
            self.reason = reason
            self.reject()
        return not self.is_finishing

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
        if self._outbox is None:
            sent = syscalls.send(self.descriptor, data, len(data), syscalls.FLAGS)
            if sent != len(data):
                self.keep_rest(data, sent)
        elif not self._outbox.offer(data, self._terms.limit):
            self.overflowed = self.is_gone = True
            self.size -= len(data)

    def keep_rest(self, data: bytes, sent: int) -> None:
        """Keep the part of *data* that `syscalls.send` has not sent.

        :param sent: The number of bytes sent; -1 for a failure, whose cause is then checked.
        """
        self._outbox = Outbox(data, max(sent, 0))
        if sent < 0:
            self.flush()

    def flush(self) -> None:
        """Send waiting data, as much as the socket accepts."""
        while self._outbox:
            data, start = self._outbox.next_part()
            sent = syscalls.send_rest(self.descriptor, data, start)
            if sent < 0:
                if syscalls.last_error() not in (errno.EAGAIN, errno.EINTR):
                    self.is_gone = True
                return
            self._outbox.advance(sent)
        self._outbox = None

    def finish(self) -> None:
        """End the response; waiting data is sent first."""
        self.is_closing = True
        if self.chunked and self._outbox is not None:
            # The limit does not apply here: the waiting data may already have reached it.
            self._outbox.add(_LAST_CHUNK)
            self.size += len(_LAST_CHUNK)
        elif self.chunked:
            self._send(_LAST_CHUNK)

    def close(self) -> None:
        """Close the connection, even if data is waiting."""
        descriptor, self.descriptor = self.descriptor, -1
        # Another connection may have this number by now.
        if descriptor >= 0:
            waiting = 0 if self._outbox is None else self._outbox.size
            self._outbox = None
            self.is_gone = True
            syscalls.close_socket(descriptor)
            self._terms.ended(self._callbacks)
            if self._visit is not None:
                self._visit.count(self.events, max(self.size - waiting, 0))
                self._visit.ended(OVERFLOW if self.overflowed else self.reason)

    def release_in_child(self) -> None:
        """Close the descriptor in a forked child; the connection remains the parent's."""
        descriptor, self.descriptor = self.descriptor, -1
        self.is_gone = True
        forks.close_copy(descriptor)

    def _send_first(self, frames: bytes) -> None:
        head, self._head = self._head, None
        assert head is not None
        self.size -= len(head)
        self._send(head + self._framed(Batch((), frames)))

    def _framed(self, batch: Batch) -> bytes:
        return batch.chunk if self.chunked else batch.frames
