"""The events that one listener asks for."""

from typing import NamedTuple

from flask_sse._event.channel_name import Key
from flask_sse._hub.subscriber import Follower, Subscriber
from flask_sse._log.composite_id import Marks
from flask_sse._log.position import Cursor
from flask_sse._system.gate import Gate


class Feed(NamedTuple):
    """The events of a channel or of several; it never changes."""

    channel: Key
    is_logged: bool
    """Whether a channel has history."""
    after: Cursor | None = None
    """The position in its log after which to begin, or `None` for the newest position."""
    marks: Marks = ()
    """The same for several channels, for each one that has history."""
    is_strict: bool = False
    """Whether the listener gets a :exc:`LookupError` if events may be missing."""

    def new_subscriber(self, limit: int, gate: Gate | None = None) -> Subscriber:
        """Return a subscriber, for which *limit* bytes may wait.

        :param gate: Where its reader waits, if it waits for others too.
        """
        if not self.is_logged:
            return Subscriber(limit, gate=gate)
        return Follower(limit, self.after, self.marks, is_strict=self.is_strict, gate=gate)
