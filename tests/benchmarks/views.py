"""Clients that keep a server busy with requests that are no streams.

The load generator's loop reads their answers. There are few of them, as each takes the server a
while, so they hardly delay the streams that it reads as well.
"""

from __future__ import annotations

import socket
import time
from functools import partial
from typing import Final

from .load import Load
from .processes import LOOPBACK

_REQUEST: Final = b"GET /busy HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
_TIMEOUT: Final = 10.0
_READ: Final = 1 << 16


class ViewError(Exception):
    """The view was not answered, or not as it should be."""


class BusyViews:
    """Clients that request the view again as soon as it is answered.

    Each request has a connection of its own, whatever the worker: gunicorn's sync worker keeps none
    open.
    """

    def __init__(self, load: Load, port: int, clients: int) -> None:
        """Send the first request of each client; ``load`` reads the answers while it polls."""
        self.answered = 0
        self._load = load
        self._port = port
        self._waiting: dict[socket.socket, bytes] = {}
        for _ in range(clients):
            self._ask()

    def close(self) -> None:
        """Close the connections of the requests that are not answered yet."""
        for client in list(self._waiting):
            self._forget(client)

    def await_answers(self, count: int, seconds: float) -> None:
        """Poll until ``count`` requests have been answered since the beginning.

        :raises ViewError: if that takes more than ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while self.answered < count:
            if time.monotonic() > deadline:
                raise ViewError(f"{self.answered} of {count} views answered within {seconds:g} s")
            self._load.poll(0.1)

    def _ask(self) -> None:
        """Connect and send a request: neither waits on the loopback interface."""
        client = socket.create_connection((LOOPBACK, self._port), _TIMEOUT)
        client.sendall(_REQUEST)
        self._waiting[client] = b""
        self._load.watch(client, partial(self._read, client))

    def _read(self, client: socket.socket) -> None:
        """Read once; at the end of an answer, check it and ask again."""
        data = client.recv(_READ)
        self._waiting[client] += data
        if data:
            return
        answer = self._forget(client)
        if not (answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\ndone")):
            raise ViewError(f"the view was answered {answer[:200]!r}")
        self.answered += 1
        self._ask()

    def _forget(self, client: socket.socket) -> bytes:
        """Close a connection and return what came over it."""
        self._load.unwatch(client)
        client.close()
        return self._waiting.pop(client)
