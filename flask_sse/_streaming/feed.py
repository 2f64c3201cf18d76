"""The part of a channel that one listener asks for."""

from typing import NamedTuple

from flask_sse._hub.subscriber import Follower, Subscriber
from flask_sse._log.position import Position


class Feed(NamedTuple):
    """The events that one listener asks for; it never changes."""

    channel: bytes
    is_logged: bool
    """Whether the channel has history."""
    after: Position | None = None
    """The position in its log after which to begin, or `None` for the newest position."""
    is_strict: bool = False
    """Whether the listener gets a :exc:`LookupError` if events may be missing."""

    def new_subscriber(self, limit: int) -> Subscriber:
        """Return a subscriber, for which *limit* bytes may wait."""
        if not self.is_logged:
            return Subscriber(limit)
        return Follower(limit, self.after, is_strict=self.is_strict)
