"""A subscriber whose client's socket is known.

As `_subscriber` says: `offer`, `end` and `send_comment` never block, and `write_waiting`
is for the greenlet that serves the client.
"""

import random
import socket
import time

from flask_sse import _server
from flask_sse._message import COMMENT
from flask_sse._subscriber import Batch, Subscriber


class _Rest(Batch):
    """What a socket has not taken of a batch, which has its framing already."""

    __slots__ = ()

    @property
    def chunk(self) -> bytes:
        return self.frames


class Client(Subscriber):
    """What waits for one client, or is written straight to its socket.

    Within :meth:`write_waiting`, and as long as nothing waits, an offer is written
    straight away. What the socket does not take waits for the client's own greenlet,
    and with it all that comes after, so that the order stays. Only gevent's sockets
    are written to like that: those who offer and that greenlet take turns, and need
    no lock.

    :param connection: Belongs to the server, which closes it.
    :param keepalive: Seconds of silence after which a comment is sent, or `None`.
    """

    __slots__ = ("_chunked", "_direct", "_due", "_keepalive", "_seen", "_written", "connection")

    def __init__(self, limit: int, connection: socket.socket, keepalive: float | None) -> None:
        super().__init__(limit)
        self.connection = connection
        self._keepalive = keepalive
        self._chunked: bool | None = None
        self._direct = False
        self._written = self._seen = self._due = time.monotonic()
        if keepalive is not None:
            self._due += keepalive

    def offer(self, batch: Batch) -> bool:
        """Write a batch, or leave it; `False` says that this client is cut off."""
        if not self._direct:
            return super().offer(batch)
        self._written = batch.time
        return self._write(batch)

    def end(self) -> None:
        """Write nothing more, and let the client's greenlet know."""
        self._direct = False
        super().end()

    def write_waiting(self, *, chunked: bool) -> None:
        """Write all that comes to the socket, until the end.

        :param chunked: Whether the response is sent in chunks.
        :raises OSError: if the client has gone.
        """
        self._chunked = chunked
        try:
            while True:
                self._direct = not self.is_waiting()
                batches = self.take(timeout=None)
                if batches is None:
                    return
                self.connection.sendall(b"".join([self._framed(batch) for batch in batches]))
        finally:
            self._chunked, self._direct = None, False

    def send_comment(self, now: float) -> float | None:
        """Send a comment, if there was silence for long enough.

        :return: when to call again, on the monotonic clock; `None` for never.
        """
        if self._chunked is None or self._keepalive is None:
            return None
        if self._written != self._seen:
            # After an event to all clients, the comments to them would all be due at
            # the same time: so each is sent earlier than it must be, as chance has it.
            self._seen = self._written
            self._due = self._written + self._keepalive * random.uniform(0.5, 1.0)
        if now >= self._due:
            self._due = now + self._keepalive
            if self._direct:
                self._written = self._seen = now
                self._write(Batch((), COMMENT))
        return min(self._due, now + self._keepalive / 2)

    def _framed(self, batch: Batch) -> bytes:
        return batch.chunk if self._chunked else batch.frames

    def _write(self, batch: Batch) -> bool:
        data = self._framed(batch)
        try:
            sent = _server.send_now(self.connection, data)
        except OSError:
            self.end()
            return True
        if sent == len(data):
            return True
        self._direct = False
        return super().offer(_Rest((), data[sent:]))

    def _cut_off(self) -> None:
        super()._cut_off()
        _server.hang_up(self.connection)
