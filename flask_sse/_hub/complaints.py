"""Log messages about events, channels and clients, limited in number.

A publisher of malformed events, or a client that requests forbidden channels, could fill the
log. Only the hub's loop uses it. Nothing blocks.
"""

import logging
from typing import Final

from flask_sse._event import channel_name
from flask_sse._event.channel_name import Key

_log: Final = logging.getLogger("flask_sse")

_MOST_WARNINGS: Final = 100


class Complaints:
    """Counts the problems of each kind, and logs the first one and some of the others."""

    def __init__(self) -> None:
        self._malformed = 0
        self._refused = 0
        self._foreign: set[bytes] = set()

    def malformed(self, name: bytes, error: Exception) -> None:
        """Note an event that can't be decoded."""
        self._malformed += 1
        _log_some("malformed event", self._malformed, name, error)

    def refused(self, name: bytes, error: Exception) -> None:
        """Note a channel that Redis forbids."""
        self._refused += 1
        _log_some("subscription", self._refused, name, error)

    def foreign(self, name: bytes) -> None:
        """Note an event without history on a channel that has some."""
        if name in self._foreign or len(self._foreign) >= _MOST_WARNINGS:
            return
        self._foreign.add(name)
        _log.warning(
            "channel %s has history, but somebody publishes to it without history: such events "
            "have no id and reach connected clients only; SSE_HISTORY and the database in "
            "REDIS_URL must be the same for all publishers",
            channel_name.for_log(name),
        )

    def overflowed(self, key: Key) -> None:
        """Note a client that reads too slowly."""
        _log.warning(
            "a client of channel %s is disconnected: more than SSE_MAX_PENDING bytes waited for it",
            channel_name.for_log(key),
        )


def _log_some(what: str, number: int, name: bytes, error: Exception) -> None:
    # Only numbers that are powers of two.
    if number & (number - 1) == 0:
        text = "dropped %s number %d, on channel %s: %.200s"
        _log.warning(text, what, number, channel_name.for_log(name), error)
