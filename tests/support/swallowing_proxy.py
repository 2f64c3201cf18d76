"""A TCP proxy behind which a network can be divided: it swallows what is sent through it."""

import socket
from collections import deque

from tests.support.relay import Link, Relay
from tests.support.waiting import wait_until


class _Link(Link):
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        super().__init__(client, server)
        self.source: str = client.getpeername()[0]
        self.held: deque[tuple[bytes, bool]] = deque()
        """Data that nobody has received, and whether a client has sent it."""


class SwallowingProxy(Relay[_Link]):
    """Relays to a port, and can swallow what is sent, while all connections stay open.

    A side that closes its connection meanwhile is not missed by the other one. Afterwards, each
    side receives what was held, as TCP sends it again, or finds its connection reset.

    :param port: The port of the server.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port, _Link)
        self.swallows_all = False
        """Whether everything is swallowed."""
        self._sources: set[str] = set()
        self._resets = False

    @property
    def held(self) -> int:
        """How many bytes are held now."""
        return sum(len(data) for link in [*self._links] for data, _ in [*link.held])

    def swallow(self, source: str | None = None) -> None:
        """Swallow what is sent from now on, in both directions.

        :param source: Only on connections from this address.
        """
        if source is None:
            self.swallows_all = True
        else:
            self._sources.add(source)

    def heal(self, source: str | None = None, *, reset: bool = False) -> None:
        """End this, and wait until everything that was held is delivered.

        :param source: As it was given to :meth:`swallow`.
        :param reset: Reset the connections on which data is held instead.
        """
        self._resets = reset
        if source is None:
            self.swallows_all = False
        else:
            self._sources.discard(source)
        wait_until(
            lambda: not any(link.held and not self._swallows(link) for link in [*self._links]),
            "what was held is delivered",
        )

    def relay(self, link: _Link, data: bytes, *, from_client: bool) -> None:
        """Forward data, or hold it."""
        if link.held or self._swallows(link):
            link.held.append((data, from_client))
        else:
            link.send(data, from_client=from_client)

    def end(self, link: _Link, *, from_client: bool) -> None:
        """Close a connection, or only remember that one side has closed it."""
        if link.held or self._swallows(link):
            self.ignore(link, from_client=from_client)
            link.held.append((b"", from_client))
        else:
            self.drop(link)

    def tick(self) -> None:
        """Deliver what is held no longer."""
        for link in [*self._links]:
            if not link.held or self._swallows(link):
                continue
            if self._resets:
                self.drop(link, reset=True)
                link.held.clear()
            while link.held:
                data, from_client = link.held[0]
                if data:
                    link.send(data, from_client=from_client)
                    link.held.popleft()
                else:
                    self.drop(link)
                    link.held.clear()

    def _swallows(self, link: _Link) -> bool:
        return self.swallows_all or link.source in self._sources
