"""One client's stream, as the signals tell of it.

Each stream has a visit of its own if anybody wants to know, and `None` if nobody does. It belongs
to what serves the client: a thread of the server's, and the hub's owner after the hand-over.
Nothing blocks.
"""

import time
from typing import Final

from flask_sse._notices import Notices
from flask_sse._signals import client_connected, client_gone, client_refused

CLIENT: Final = "client"
"""The client has closed its connection, or can't be reached."""
OVERFLOW: Final = "overflow"
"""More waited for it than may wait."""
STOP: Final = "stop"
"""The server is about to stop."""
REDIS: Final = "redis"
"""There is no subscription to be had."""
FULL: Final = "full"
"""There is no place for another stream."""
ERROR: Final = "error"
"""Something has failed."""
END: Final = "end"
"""An overridden generator of messages has come to its end."""


class Visit:
    """Sends the signals of one stream: connected and then gone, or refused.

    :param client: What the application has said of the client.
    """

    __slots__ = ("_bytes", "_events", "_notices", "_opened", "_values")

    def __init__(self, notices: Notices, channel: bytes, client: object) -> None:
        self._notices = notices
        self._values = {"channel": channel.decode(errors="replace"), "client": client}
        self._opened: float | None = None
        self._events = 0
        self._bytes = 0

    def opened(self) -> None:
        """Note that the stream has begun."""
        self._opened = time.monotonic()
        self._notices.later(client_connected, **self._values)

    def count(self, events: int, size: int) -> None:
        """Add what has been sent.

        :param size: Bytes.
        """
        self._events += events
        self._bytes += size

    def ended(self, reason: str) -> None:
        """Note that the stream has ended; to be called once."""
        if self._opened is not None:
            self._notices.later(
                client_gone,
                **self._values,
                reason=reason,
                duration=time.monotonic() - self._opened,
                events_sent=self._events,
                bytes_sent=self._bytes,
            )
        elif reason != CLIENT:
            self._notices.later(client_refused, **self._values, reason=reason)


def new_visit(notices: Notices, channel: bytes, client: object) -> Visit | None:
    """Return a visit, if there is a receiver that wants to know of it."""
    signals = (client_connected, client_gone, client_refused)
    if not any(signal.receivers for signal in signals):
        return None
    notices.await_at_exit()
    return Visit(notices, channel, client)
