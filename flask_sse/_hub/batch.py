"""What listeners get at one time, encoded once for all of them.

Only the hub's loop makes batches; they never change. Nothing blocks.
"""

from collections.abc import Sequence
from typing import NamedTuple

from flask_sse._log.decoding import Event
from flask_sse._log.position import Cursor, Entry, Position
from flask_sse._system.clock import monotonic


class Opening(NamedTuple):
    """The beginning of a channel with history."""

    cursor: Cursor
    """Where it continues."""
    recovered: bool
    """Whether the client has missed nothing."""


class Reset(NamedTuple):
    """A gap in a channel with history."""

    position: Position
    """Where it continues."""
    frame: bytes
    """The event that says so."""


Content = Event | Opening | Reset
"""A part of a batch on a channel with history."""


class Batch:
    """The events that Redis has sent for one channel at one time, decoded and encoded once.

    :param payloads: The events as they are stored.
    :param frames: The events as an event stream carries them, joined.
    :param contents: On a channel with history, the parts of the frames, in order.
    """

    __slots__ = ("_chunk", "contents", "frames", "payloads", "time")

    def __init__(
        self, payloads: Sequence[bytes], frames: bytes, contents: Sequence[Content] = ()
    ) -> None:
        self.contents = contents
        self.payloads = payloads
        self.frames = frames
        self.time = monotonic()
        self._chunk: bytes | None = None

    @property
    def end(self) -> Entry | None:
        """The channel's end, if this is the last batch for the listeners that get it."""
        last = self.contents[-1] if self.contents else None
        return last if isinstance(last, Entry) and last.ends_after is not None else None

    @property
    def chunk(self) -> bytes:
        """The frames as one chunk of an HTTP/1.1 message (RFC 9112, section 7.1)."""
        if self._chunk is None:
            self._chunk = b"%x\r\n%b\r\n" % (len(self.frames), self.frames)
        return self._chunk
