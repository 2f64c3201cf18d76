"""A TCP proxy that forgets idle connections, as firewalls and NATs do."""

import socket
import time

from tests.support.relay import Link, Relay
from tests.support.waiting import wait_until


class _Link(Link):
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        super().__init__(client, server)
        self.active = time.monotonic()
        self.is_forgotten = False


class ForgetfulProxy(Relay[_Link]):
    """Relays to a port, and forgets each connection that has been idle for too long.

    Neither side is told that a connection is forgotten. If the client sends data afterwards,
    the answer is a reset, or nothing.

    :param port: The port of the server.
    :param idle: Seconds of idleness after which a connection is forgotten.
    :param resets: Whether to answer with a reset.
    """

    def __init__(self, port: int, *, idle: float = 3600, resets: bool = False) -> None:
        super().__init__(port, _Link)
        self.forgotten = 0
        """How many connections have been forgotten."""
        self._idle = idle
        self._resets = resets
        self._forgets_all = False

    @property
    def idle_for(self) -> float:
        """How many seconds no data has been sent on any connection."""
        return time.monotonic() - max(link.active for link in self._links)

    def forget_all(self) -> None:
        """Forget all current connections."""
        self._forgets_all = True
        wait_until(lambda: not self._forgets_all, "the connections are forgotten")

    def relay(self, link: _Link, data: bytes, *, from_client: bool) -> None:
        """Forward data, or answer like a server that does not know this connection."""
        if not link.is_forgotten:
            link.active = time.monotonic()
            link.send(data, from_client=from_client)
        elif from_client and self._resets:
            self.drop(link, reset=True)

    def tick(self) -> None:
        """Forget idle connections."""
        forgets_all = self._forgets_all
        for link in self._links:
            is_idle = time.monotonic() - link.active > self._idle
            if not link.is_forgotten and (is_idle or forgets_all):
                link.is_forgotten = True
                self.forgotten += 1
        if forgets_all:
            self._forgets_all = False
