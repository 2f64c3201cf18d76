"""What the checks of Redis need of an application, and what they do, whatever kind of Redis it is.

Nothing blocks here.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from flask.json.provider import JSONProvider

from flask_sse._doctor.finding import Finding
from flask_sse._event import channel_name
from flask_sse._settings import Settings


class App(NamedTuple):
    """An application that publishes."""

    settings: Settings
    provider: JSONProvider
    channel: str
    """The channel to publish to."""
    is_new: bool
    """Whether this channel was made for the checks."""
    publish: Callable[[str, str], int]
    """Publishes data to a channel, as the application does."""

    @property
    def encoded(self) -> bytes:
        """The channel's name in Redis."""
        return channel_name.encode(self.channel)

    @property
    def has_history(self) -> bool:
        """Whether any channel has history."""
        return bool(self.settings.history)


class Examined(Protocol):
    """A Redis, or a cluster, that can be checked."""

    @property
    def can_publish(self) -> bool:
        """Whether an event has been published to the channel of the checks."""
        ...

    def examine(self, app: App) -> Iterator[Finding]:
        """Yield the findings."""
        ...

    def count_listeners(self, channel: bytes) -> int | None:
        """Return how many processes are subscribed; `None` if Redis does not say."""
        ...

    def forget(self, app: App) -> None:
        """Delete what Redis keeps of the events of the checks."""

    def close(self) -> None:
        """Close the connections."""
