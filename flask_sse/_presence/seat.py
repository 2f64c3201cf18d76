"""One stream's part in presence: it begins, and ends.

The thread that serves the stream uses it. Nothing blocks.
"""

from typing import Final

from flask_sse._callbacks.stream_signals import AGE, ERROR, OVERFLOW, REDIS, STOP
from flask_sse._presence.roster import Departure, Roster

_DEPARTURES: Final = {
    STOP: Departure.STOP,
    **dict.fromkeys((AGE, ERROR, OVERFLOW, REDIS), Departure.ENDED),
}
"""How a stream has ended, if its client has not closed it and may still have it."""


class Seat:
    """The place of one stream among the members of its channels.

    :param channels: The channels of the stream that have presence.
    :param client: The client's name.
    """

    __slots__ = ("_channels", "_client", "_roster")

    def __init__(self, roster: Roster, channels: tuple[bytes, ...], client: str) -> None:
        self._roster = roster
        self._channels = channels
        self._client = client

    def take(self) -> None:
        """Note that the stream has begun."""
        for channel in self._channels:
            self._roster.enter(channel, self._client)

    def leave(self, reason: str) -> None:
        """Note that the stream has ended, and why."""
        departure = _DEPARTURES.get(reason, Departure.GONE)
        for channel in self._channels:
            self._roster.leave(channel, self._client, departure)
