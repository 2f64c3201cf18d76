"""A TCP proxy, the base of the proxies that cause faults."""

import contextlib
import selectors
import socket
import struct
import threading
from typing import Final, Generic, Self, TypeVar

from tests.support.processes import LOOPBACK

_TICK: Final = 0.05
# Closing a socket without lingering resets its connection.
_RESET: Final = struct.pack("ii", 1, 0)


class Link:
    """A client's connection, and the matching connection to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server

    def send(self, data: bytes, *, from_client: bool) -> None:
        """Forward data from one side to the other."""
        with contextlib.suppress(ConnectionError):
            (self.server if from_client else self.client).sendall(data)

    def close(self, *, reset: bool = False) -> None:
        """Close both connections.

        :param reset: Whether to reset the client's connection instead of closing it.
        """
        if reset:
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.client.close()
        self.server.close()


AnyLink = TypeVar("AnyLink", bound=Link)


class Relay(Generic[AnyLink]):
    """Relays to a port, in a separate thread, which also calls the methods of subclasses.

    :param port: The port of the server.
    :param link_class: The class that holds the two connections.
    """

    def __init__(self, port: int, link_class: type[AnyLink]) -> None:
        self.accepted = 0
        """How many connections there have been."""
        self._port = port
        self._link_class = link_class
        self._links: set[AnyLink] = set()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._stopped = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()
        for link in self._links:
            link.close()
        self._selector.close()
        self._listener.close()

    def relay(self, link: AnyLink, data: bytes, *, from_client: bool) -> None:
        """Handle data that one side has sent."""
        link.send(data, from_client=from_client)

    def end(self, link: AnyLink, *, from_client: bool) -> None:
        """Handle that one side has closed its connection."""
        self.drop(link)

    def tick(self) -> None:
        """Do regular work; called at least every 50 ms."""

    def lead_to(self, port: int) -> None:
        """Relay new connections to another port."""
        self._port = port

    def drop(self, link: AnyLink, *, reset: bool = False) -> None:
        """Close both connections of a link."""
        for side in (link.client, link.server):
            with contextlib.suppress(KeyError):
                self._selector.unregister(side)
        self._links.discard(link)
        link.close(reset=reset)

    def ignore(self, link: AnyLink, *, from_client: bool) -> None:
        """Receive nothing more from one side."""
        self._selector.unregister(link.client if from_client else link.server)

    def _run(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(_TICK):
                if key.data is None:
                    self._accept()
                elif key.data in self._links:
                    self._receive(key.data, from_client=key.fileobj is key.data.client)
            self.tick()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection((LOOPBACK, self._port))
        except ConnectionError:
            # The server does not run.
            client.close()
            return
        link = self._link_class(client, server)
        for side in (link.client, link.server):
            self._selector.register(side, selectors.EVENT_READ, link)
        self._links.add(link)
        self.accepted += 1

    def _receive(self, link: AnyLink, *, from_client: bool) -> None:
        try:
            data = (link.client if from_client else link.server).recv(65536)
        except ConnectionError:
            data = b""
        if data:
            self.relay(link, data, from_client=from_client)
        else:
            self.end(link, from_client=from_client)
