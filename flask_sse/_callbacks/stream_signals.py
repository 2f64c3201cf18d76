"""One client's stream, as the signals and presence report it.

Each stream has its own visit if a signal has receivers or it counts for presence, and otherwise
`None`. Only the thread
that serves the client uses it: one of the server's, or after the hand-over, the hub's loop.
Nothing blocks.
"""

from typing import Final, Protocol

from flask_sse._callbacks.receivers import Notices
from flask_sse._event import channel_name
from flask_sse._event.channel_name import Key
from flask_sse._system.clock import monotonic
from flask_sse.signals import client_connected, client_gone, client_refused

CLIENT: Final = "client"
"""The client has closed its connection, or can't be reached."""
OVERFLOW: Final = "overflow"
"""More data waited for the client than the limit allows."""
STOP: Final = "stop"
"""The server is about to stop."""
REDIS: Final = "redis"
"""The subscription has failed."""
FULL: Final = "full"
"""The limit of streams is reached."""
ERROR: Final = "error"
"""Something has failed."""
END: Final = "end"
"""Its channels have ended, or an overridden generator of messages has."""
AGE: Final = "age"
"""The stream has reached its age limit."""
DISCONNECT: Final = "disconnect"
"""The application has disconnected the client."""


class Seat(Protocol):
    """The place of a stream among the members of its channels."""

    def take(self) -> None:
        """Note that the stream has begun."""
        ...

    def leave(self, reason: str) -> None:
        """Note that the stream has ended, and why."""
        ...


class Visit:
    """Sends the signals of one stream: connected and then gone, or refused.

    :param channel: The channel, or several in order.
    :param client: What the application has said about the client.
    :param seat: Its place among the members of its channels, if it has one.
    """

    __slots__ = ("_bytes", "_events", "_notices", "_opened", "_seat", "_values")

    def __init__(
        self, notices: Notices, channel: Key, client: object, seat: Seat | None = None
    ) -> None:
        self._notices = notices
        self._seat = seat
        names = (channel,) if isinstance(channel, bytes) else channel
        channels = tuple(map(channel_name.to_text, names))
        self._values = {"channel": channels[0], "channels": channels, "client": client}
        self._opened: float | None = None
        self._events = 0
        self._bytes = 0

    def opened(self) -> None:
        """Note that the stream has begun."""
        self._opened = monotonic()
        if self._seat is not None:
            self._seat.take()
        self._notices.later(client_connected, **self._values)

    def count(self, events: int, size: int) -> None:
        """Count sent data.

        :param size: The number of bytes.
        """
        self._events += events
        self._bytes += size

    def ended(self, reason: str) -> None:
        """Note that the stream has ended; must be called once."""
        if self._opened is not None:
            if self._seat is not None:
                self._seat.leave(reason)
            self._notices.later(
                client_gone,
                **self._values,
                reason=reason,
                duration=monotonic() - self._opened,
                events_sent=self._events,
                bytes_sent=self._bytes,
            )
        elif reason != CLIENT:
            self._notices.later(client_refused, **self._values, reason=reason)


def new_visit(
    notices: Notices, channel: Key, client: object, seat: Seat | None = None
) -> Visit | None:
    """Return a visit, if one of its signals has receivers, or the stream has a seat."""
    signals = (client_connected, client_gone, client_refused)
    if any(signal.receivers for signal in signals):
        notices.await_at_exit()
    elif seat is None:
        return None
    return Visit(notices, channel, client, seat)
