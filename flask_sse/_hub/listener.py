"""The interface that a channel expects of its listeners."""

from typing import Protocol

from flask_sse._event.channel_name import Key
from flask_sse._event.revocation import Identity
from flask_sse._hub.batch import Batch
from flask_sse._log.composite_id import Marks
from flask_sse._log.position import Cursor


class Listener(Protocol):
    """A client of a channel: a subscriber, a connection that the hub serves, or a part of one.

    Only the hub's loop calls the methods, and none of them blocks.
    """

    @property
    def resume_after(self) -> Cursor | None:
        """The position that the client sent."""
        ...

    is_behind: bool
    """Whether it gets pages of the log, or has missed a batch; its channel sets this, too."""

    @property
    def whole(self) -> "Client":
        """The client that it is, or of which it is a part."""
        ...

    @property
    def descriptor(self) -> int:
        """The descriptor that the hub owns, or -1 if it owns none."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the stream has begun."""
        ...

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be given to it now."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether it has taken everything, and may get a page."""
        ...

    def open(self) -> bool:
        """Begin the stream; return `False` if the client is gone."""
        ...

    def give(self, batch: Batch) -> bool:
        """Begin or continue the stream; return `False` if the client is gone."""
        ...

    def offer(self, batch: Batch) -> bool:
        """Continue the stream; return `False` if the client is gone, or over its limit."""
        ...

    def note_gap(self, reason: str) -> bool:
        """Prepare for a gap; return `False` if the stream has ended for this reason."""
        ...

    def note_end(self) -> bool:
        """Note that the channel has ended; return `False` if the stream has ended with it."""
        ...

    def note_live(self) -> None:
        """Note that the channel offers it each batch from now on."""
        ...


class Client(Listener, Protocol):
    """A listener that is a whole stream, of one channel or of several."""

    channel: Key
    """Where it belongs."""
    marks: Marks
    """What a client of several channels sent: where it is in each one that has history."""

    end_by: float | None
    """The time at which the stream ends at the latest, if there is a limit."""
    identity: Identity | None
    """The client's name, if it has one."""

    @property
    def overflowed(self) -> bool:
        """Whether more waited for the client than its limit."""
        ...

    @property
    def is_lagging(self) -> bool:
        """Whether the hub must send what waits for the client."""
        ...

    @property
    def is_finishing(self) -> bool:
        """Whether the stream has ended, and the hub must send what waits before it is dropped."""
        ...

    def has_room(self, batch: Batch) -> bool:
        """Whether a batch would not have to wait for too long."""
        ...

    def push(self, batch: Batch) -> bool:
        """Continue the stream; return `False` if the client is gone, or was over its limit."""
        ...

    def end(self, reason: str, error: Exception | None = None) -> bool:
        """End the stream; return `False` if the hub must send what waits first."""
        ...

    def close(self) -> None:
        """Close the descriptor that the hub owns, if there is one."""
        ...
