"""Decodes the events of channels with history.

Pure; nothing blocks, except for what a JSON provider does.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from flask.json.provider import JSONProvider

from flask_sse._event.message import Message, encode, from_payload, to_payload
from flask_sse._log import ending
from flask_sse._log.position import END, Entry, EventId, Position, Stored


class Foreign(NamedTuple):
    """An event that is not in a log of this Redis database."""

    frame: bytes
    payload: bytes


Event = Entry | Foreign
"""An event that Redis has sent to a channel with history."""

E = TypeVar("E", bound=Event)


def up_to_end(events: Sequence[E]) -> Sequence[E]:
    """Return the events up to the first one that ends the channel, or all."""
    for number, event in enumerate(events, 1):
        if isinstance(event, Entry) and event.ends_after is not None:
            return events[:number]
    return events


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
        return self._entry(position, previous, message, payload)

    def stored(self, stored: Stored) -> Entry:
        """Decode an event that was read from a log."""
        position, previous, payload = stored
        return self._entry(position, previous, from_payload(payload, self._provider), payload)

    def _entry(self, position: Position, previous: str, message: Message, payload: bytes) -> Entry:
        ends_after = ending.find_end(payload)
        message.id = str(position) if ends_after is None else f"{position}{END}"
        return Entry(position, previous, self._frame(message), payload, ends_after)

    def _frame(self, message: Message) -> bytes:
        return encode(message, self._provider)
