"""A TCP proxy that cuts the connections of streams in the middle of the server's data."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.support.relay import Link, Relay
from tests.support.waiting import wait_until

_MOST_BYTES: Final = 600
_END_OF_HEAD: Final = b"\r\n\r\n"


class _Link(Link):
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        super().__init__(client, server)
        self.is_stream = False
        """Whether the client has asked for a stream."""
        self.has_begun = False
        """Whether the head of the stream has been relayed."""


class CuttingProxy(Relay[_Link]):
    """Relays to a port, and cuts connections on request.

    A cut comes after a random number of the next bytes of a stream's events, so it may be
    anywhere: in the replay, between two events, in the middle of an event. Every other cut resets
    the connection, and the rest close it. The head of a response is never cut: it is sent in one
    packet, and some clients mistake a part of it for the whole, miss `Content-Type`, and give up.

    :param port: The port of the server.
    :param seed: Determines where the cuts are.
    """

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(port, _Link)
        self.cuts = 0
        """How many connections have been cut."""
        self._random = random.Random(seed)
        self._bytes_left: int | None = None
        self._refuses = False

    @property
    def streams(self) -> int:
        """How many connections carry streams."""
        return sum(link.is_stream for link in [*self._links])

    def cut(self) -> None:
        """Cut the next stream on which data is sent, and wait until it has been cut."""
        with self.cutting(after=self._random.randint(0, _MOST_BYTES)):
            pass

    @contextmanager
    def cutting(self, *, after: int) -> Iterator[None]:
        """Cut a stream when data is sent in the block, and wait for the cut at the end.

        :param after: How many bytes are relayed before the cut, without the head of a response.
        """
        wanted = self.cuts + 1
        self._bytes_left = after
        yield
        wait_until(lambda: self.cuts >= wanted, f"cut {wanted}")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Reset all connections, and each new one until the block ends."""
        self._refuses = True
        wait_until(lambda: not self._links, "no connection is left")
        try:
            yield
        finally:
            self._refuses = False

    def relay(self, link: _Link, data: bytes, *, from_client: bool) -> None:
        """Forward data, and cut the connection at the chosen byte."""
        if from_client:
            link.is_stream, link.has_begun = data.startswith(b"GET /stream"), False
        place = None if from_client else self._place_of_cut(link, data)
        link.send(data[:place], from_client=from_client)
        if place is not None:
            self.drop(link, reset=self.cuts % 2 == 0)
            self.cuts += 1

    def tick(self) -> None:
        """Reset all connections while connections are refused."""
        if self._refuses:
            for link in [*self._links]:
                self.drop(link, reset=True)

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
