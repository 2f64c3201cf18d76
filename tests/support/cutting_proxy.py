"""A TCP proxy that cuts the connections of streams in the middle of what the server sends."""

import contextlib
import random
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from tests.support.processes import LOOPBACK
from tests.support.waiting import wait_until

_TICK: Final = 0.05
_MOST_BYTES: Final = 600
_END_OF_HEAD: Final = b"\r\n\r\n"
# A socket that is closed without lingering resets its connection.
_RESET: Final = struct.pack("ii", 1, 0)


class _Link:
    """A client's connection and the one to the server that it leads to."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.is_stream = False
        """Whether the client has asked for a stream."""
        self.has_begun = False
        """Whether the head of the stream has been relayed."""

    def close(self, *, reset: bool = False) -> None:
        """Close both connections.

        :param reset: Whether the client's one is reset, and not ended.
        """
        if reset:
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.client.close()
        self.server.close()


class CuttingProxy:
    """Relays to a port, and cuts connections when it is told to.

    A cut comes after a random number of the next bytes of a stream's events, so it may be in any
    place: in the replay, between two events, in the middle of one. Every other cut resets the
    connection, and the rest close it. The head of a response is never cut: it is sent in one
    packet, and some clients take a part of it for the whole, miss `Content-Type`, and give up.

    :param port: The port of the server.
    :param seed: Decides the places of the cuts.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.accepted = 0
        """How many connections there have been."""
        self.cuts = 0
        """How many of them have been cut."""
        self._port = port
        self._random = random.Random(seed)
        self._bytes_left: int | None = None
        self._refuses = False
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._links: set[_Link] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped = True
        self._thread.join()
        for link in self._links:
            link.close()
        self._selector.close()
        self._listener.close()

    @property
    def streams(self) -> int:
        """How many connections of streams there are."""
        return sum(link.is_stream for link in [*self._links])

    def cut(self) -> None:
        """Cut the next stream on which something is sent, and wait until that has happened."""
        with self.cutting(after=self._random.randint(0, _MOST_BYTES)):
            pass

    @contextmanager
    def cutting(self, *, after: int) -> Iterator[None]:
        """Cut a stream because of what is sent in the block, and wait for it at the end.

        :param after: How many bytes are relayed before the cut, without the head of a response.
        """
        wanted = self.cuts + 1
        self._bytes_left = after
        yield
        wait_until(lambda: self.cuts >= wanted, f"cut {wanted}", 20)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Reset all connections, and each new one until the block ends."""
        self._refuses = True
        wait_until(lambda: not self._links, "no connection is left")
        try:
            yield
        finally:
            self._refuses = False

    def _run(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(_TICK):
                if key.data is None:
                    self._accept()
                elif key.data in self._links:
                    self._relay(key.data, key.fileobj is key.data.client)
            if self._refuses:
                for link in [*self._links]:
                    self._drop(link, reset=True)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.accepted += 1
        link = _Link(client, socket.create_connection((LOOPBACK, self._port)))
        if self._refuses:
            link.close(reset=True)
            return
        for side in (link.client, link.server):
            self._selector.register(side, selectors.EVENT_READ, link)
        self._links.add(link)

    def _relay(self, link: _Link, from_client: bool) -> None:
        source, target = (link.client, link.server) if from_client else (link.server, link.client)
        try:
            data = source.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._drop(link)
            return
        if from_client:
            link.is_stream, link.has_begun = data.startswith(b"GET /stream"), False
        place = None if from_client else self._place_of_cut(link, data)
        with contextlib.suppress(ConnectionError):
            target.sendall(data[:place])
        if place is not None:
            self._drop(link, reset=self.cuts % 2 == 0)
            self.cuts += 1

    def _place_of_cut(self, link: _Link, data: bytes) -> int | None:
        if not link.is_stream:
            return None
        begin = 0
        if not link.has_begun:
            begin = data.index(_END_OF_HEAD) + len(_END_OF_HEAD)
            link.has_begun = True
        if self._bytes_left is None:
            return None
        self._bytes_left -= len(data) - begin
        if self._bytes_left > 0:
            return None
        place = len(data) + self._bytes_left
        self._bytes_left = None
        return place

    def _drop(self, link: _Link, *, reset: bool = False) -> None:
        for side in (link.client, link.server):
            self._selector.unregister(side)
        self._links.discard(link)
        link.close(reset=reset)
