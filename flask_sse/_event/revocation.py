"""Clients with a name, and which of their streams must end because they have lost access.

Pure; nothing blocks.
"""

import json
from typing import Final, NamedTuple, Self, cast

from flask_sse._event import channel_name
from flask_sse._event.channel_name import Key

LONGEST_CLIENT: Final = 256
"""Characters of a client's name."""


class Identity(NamedTuple):
    """The name of a client, by which an application can end its streams."""

    name: str
    since: float
    """When the application has let it in."""


class Revocation(NamedTuple):
    """The streams of a client, of a channel, or of a client on a channel."""

    client: str | None = None
    """The client's name; `None` means all clients that have one."""
    channel: bytes | None = None
    """The channel; `None` means all channels."""

    @classmethod
    def of(cls, client: object, channel: object) -> Self:
        """Return the revocation that an application asks for.

        :raises TypeError: if both are `None`, or one has a wrong type.
        :raises ValueError: if a name can't be used.
        """
        if client is None and channel is None:
            raise TypeError("disconnect() needs client=, channel= or both")
        return cls(
            None if client is None else check_client(client),
            None if channel is None else channel_name.encode(channel),
        )

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        """Return the revocation that a process has published.

        :raises ValueError: if it is malformed.
        """
        try:
            values: object = json.loads(payload)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        names = cast("dict[str, object]", values)
        client, channel = _text(names.get("client")), _text(names.get("channel"))
        if client is None and channel is None:
            raise ValueError("it has neither a client nor a channel")
        return cls(client, None if channel is None else channel.encode(errors="surrogateescape"))

    def to_payload(self) -> bytes:
        """Return it as Redis carries it."""
        values: dict[str, str] = {}
        if self.client is not None:
            values["client"] = self.client
        if self.channel is not None:
            # Any bytes can be the name of a channel.
            values["channel"] = self.channel.decode(errors="surrogateescape")
        return json.dumps(values).encode()

    def matches(self, client: str, channels: Key) -> bool:
        """Whether the stream of a client must end."""
        if self.client is not None and self.client != client:
            return False
        if self.channel is None:
            return True
        if isinstance(channels, bytes):
            return self.channel == channels
        return self.channel in channels


def _text(name: object) -> str | None:
    if name is not None and not isinstance(name, str):
        raise ValueError("a name is not a string")
    return name


def check_client(client: object) -> str:
    """Return the name of a client.

    :raises TypeError: if it is not a string.
    :raises ValueError: if it is empty or too long.
    """
    if not isinstance(client, str):
        raise TypeError(f"client must be a str, not {client!r}; pass str() of the user's id")
    if not client:
        raise ValueError("client must not be empty; leave it out for a stream without a name")
    if len(client) > LONGEST_CLIENT:
        raise ValueError(
            f"client must have at most {LONGEST_CLIENT} characters, not {len(client)}; use the "
            f"user's id"
        )
    return client
