"""A subscriber whose client's socket is known.

`offer`, `end` and `send_comment` never block; `write_waiting` is for the greenlet that
serves the client.
"""

import random
import socket
import time
from collections.abc import Callable

from flask_sse import _sockets
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

    __slots__ = ("_chunked", "_due", "_keepalive", "_seen", "_send", "_written", "connection")

    _seen: float

    def __init__(self, limit: int, connection: socket.socket, keepalive: float | None) -> None:
        super().__init__(limit)
        self.connection = connection
        self._keepalive = keepalive
        self._chunked: bool | None = None
        self._send: Callable[[bytes], int] | None = None
        self._written = self._seen = self._due = time.monotonic()
        if keepalive is not None:
            self._due += keepalive

    def offer(self, batch: Batch) -> bool:
        """Write a batch, or leave it; `False` says that this client is cut off."""
        # Once for each event and client: nothing here is done that could be done before.
        send = self._send
        if send is None:
            return super().offer(batch)
        self._written = batch.time
        data = batch.chunk if self._chunked else batch.frames
        try:
            sent = send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            _sockets.hang_up(self.connection)
            self.end()
            return True
        if sent == len(data):
            return True
        self._send = None
        return super().offer(_Rest((), data[sent:]))

    def end(self) -> None:
        """Write nothing more, and let the client's greenlet know."""
        self._send = None
        super().end()

    def write_waiting(self, *, chunked: bool) -> None:
        """Write all that comes to the socket, until the end.

        :param chunked: Whether the response is sent in chunks.
        """
        self._chunked = chunked
        send = _sockets.non_blocking_send(self.connection)
        try:
            while True:
                self._send = None if self.is_waiting() else send
                batches = self.take(timeout=None)
                if batches is None:
                    return
                frames = [batch.chunk if chunked else batch.frames for batch in batches]
                self.connection.sendall(b"".join(frames))
        except OSError:
            _sockets.hang_up(self.connection)
        finally:
            self._chunked = self._send = None

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
            if self._send is not None:
                self.offer(Batch((), COMMENT))
                self._seen = self._written
        return min(self._due, now + self._keepalive / 2)

    def _cut_off(self) -> None:
        super()._cut_off()
        _sockets.hang_up(self.connection)
