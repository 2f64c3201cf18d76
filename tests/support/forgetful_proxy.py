"""A TCP proxy that forgets idle connections, as firewalls and NATs do."""

import contextlib
import selectors
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

from tests.support.processes import LOOPBACK
from tests.support.waiting import wait_until

_TICK = 0.05


class _Link:
    """A client's connection and the one to the server that it leads to."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.active = time.monotonic()
        self.is_forgotten = False

    def close(self) -> None:
        """Close both connections."""
        self.client.close()
        self.server.close()


class ForgetfulProxy:
    """Relays to a port, and forgets each connection that has been idle for too long.

    Neither side is told that a connection is forgotten. What the client sends afterwards
    is answered with a reset, or with nothing.

    :param port: The port of the server.
    :param idle: Seconds of idleness after which a connection is forgotten.
    :param resets: Whether to answer with a reset.
    """

    def __init__(self, port: int, *, idle: float = 3600, resets: bool = False) -> None:
        self.accepted = 0
        """How many connections there have been."""
        self.forgotten = 0
        """How many of them have been forgotten."""
        self._port = port
        self._idle = idle
        self._resets = resets
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._links: set[_Link] = set()
        self._stopped = False
        self._forgets_all = False
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
    def idle_for(self) -> float:
        """For how many seconds nothing has been sent on any connection."""
        return time.monotonic() - max(link.active for link in self._links)

    def forget_all(self) -> None:
        """Forget the connections that there are now."""
        self._forgets_all = True
        wait_until(lambda: not self._forgets_all, "the connections are forgotten")

    def _run(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(_TICK):
                if key.data is None:
                    self._accept()
                elif key.data in self._links:
                    self._relay(key.data, key.fileobj is key.data.client)
            forgets_all = self._forgets_all
            for link in self._links:
                is_idle = time.monotonic() - link.active > self._idle
                if not link.is_forgotten and (is_idle or forgets_all):
                    link.is_forgotten = True
                    self.forgotten += 1
            if forgets_all:
                self._forgets_all = False

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        link = _Link(client, socket.create_connection((LOOPBACK, self._port)))
        for side in (link.client, link.server):
            self._selector.register(side, selectors.EVENT_READ, link)
        self._links.add(link)
        self.accepted += 1

    def _relay(self, link: _Link, from_client: bool) -> None:
        source, target = (link.client, link.server) if from_client else (link.server, link.client)
        try:
            data = source.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self._drop(link)
        elif not link.is_forgotten:
            link.active = time.monotonic()
            with contextlib.suppress(ConnectionError):
                target.sendall(data)
        elif from_client and self._resets:
            # A socket that is closed without lingering resets its connection.
            client_only = struct.pack("ii", 1, 0)
            link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, client_only)
            self._drop(link)

    def _drop(self, link: _Link) -> None:
        for side in (link.client, link.server):
            self._selector.unregister(side)
        self._links.discard(link)
        link.close()
