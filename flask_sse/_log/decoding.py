"""Decodes the events of channels with history.

Pure; nothing blocks, except for what a JSON provider does.
"""

from typing import Final, NamedTuple

from flask.json.provider import JSONProvider

from flask_sse._event.message import Message, encode, from_payload, to_payload
from flask_sse._log.position import Entry, EventId, Stored


class Foreign(NamedTuple):
    """An event that is not in a log of this Redis database."""

    frame: bytes
    payload: bytes


Event = Entry | Foreign
"""An event that Redis has sent to a channel with history."""


class Decoder:
    """Decodes events; its methods may raise any exception.

    :param database: The number of the database that has the logs.
    """

    __slots__ = ("_database", "_provider")

    def __init__(self, provider: JSONProvider, database: int) -> None:
        self._provider: Final = provider
        self._database: Final = str(database)

    def published(self, payload: bytes) -> Event:
        """Decode an event that Redis has sent to its subscribers."""
        message = from_payload(payload, self._provider)
        found = EventId.parse(message.id) if isinstance(message.id, str) else None
        if found is None or found.position.database != self._database:
            if message.id is not None:
                message.id = None
                payload = to_payload(message, self._provider)
            return Foreign(self._frame(message), payload)
        position, previous, is_large = found
        if is_large:
            return Entry(position, previous, b"", None)
        message.id = str(position)
        return Entry(position, previous, self._frame(message), payload)

    def stored(self, stored: Stored) -> Entry:
        """Decode an event that was read from a log."""
        position, previous, payload = stored
        message = from_payload(payload, self._provider)
        message.id = str(position)
        return Entry(position, previous, self._frame(message), payload)

    def _frame(self, message: Message) -> bytes:
        return encode(message, self._provider)
