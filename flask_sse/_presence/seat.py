"""One stream's part in presence: it begins, and ends.

The thread that serves the stream uses it. Nothing blocks.
"""

from flask_sse._presence.roster import Roster


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

    def leave(self, *, is_stopping: bool) -> None:
        """Note that the stream has ended.

        :param is_stopping: Whether the reason is that the process stops.
        """
        for channel in self._channels:
            self._roster.leave(channel, self._client, is_stopping=is_stopping)
