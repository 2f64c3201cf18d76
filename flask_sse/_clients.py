"""The connections that a hub's owner serves: which can be written to, are gone, or are silent.

For the hub's owner alone. Nothing blocks.
"""

import select
from collections import deque
from collections.abc import Iterator
from typing import Final

from flask_sse import _server, _syscalls
from flask_sse._connection import Connection

# Edge-triggered: a connection is registered once for all that may happen to it, and one that a
# forked child still holds cannot wake the owner again and again.
_EVENTS: Final = select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET if _syscalls.AVAILABLE else 0
_GONE: Final = select.EPOLLERR | select.EPOLLHUP if _syscalls.AVAILABLE else 0
_LEFT: Final = select.EPOLLRDHUP if _syscalls.AVAILABLE else 0


class Clients:
    """The connections by descriptor.

    :param keepalive: Seconds of silence within which a comment is due, or `None`.
    """

    def __init__(self, keepalive: float | None) -> None:
        epoll = _server.new_epoll()
        assert epoll is not None, "there is no hand-over without it"
        self._epoll = epoll
        self._connections: dict[int, Connection] = {}
        self._unopened: deque[tuple[float, Connection]] = deque()
        # Each connection is looked at four times in that time; the one that has been silent
        # for three of them gets its comment.
        self._round = None if keepalive is None else keepalive / 4
        self._turns: Iterator[int] = iter(())
        self._looked = 0.0
        self._share = 0.0

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over a snapshot of the connections."""
        return iter([*self._connections.values()])

    def fileno(self) -> int:
        """Return a descriptor that can be read when :meth:`events` has something."""
        return self._epoll.fileno()

    def add(self, connection: Connection, open_by: float) -> None:
        """Serve a connection, which is to be open at the time *open_by* at the latest."""
        self._connections[connection.descriptor] = connection
        self._unopened.append((open_by, connection))
        self._epoll.register(connection.descriptor, _EVENTS)

    def discard(self, connection: Connection) -> None:
        """Serve a connection no more; to be called before it is closed."""
        if self._connections.get(connection.descriptor) is connection:
            del self._connections[connection.descriptor]
            _syscalls.forget(self._epoll.fileno(), connection.descriptor)

    def events(self) -> Iterator[tuple[Connection, bool]]:
        """Yield connections that can be written to, or have ended; and whether they have.

        A client that has closed its side alone is still told that the stream has ended.
        """
        for descriptor, events in self._epoll.poll(0):
            connection = self._connections.get(descriptor)
            if connection is None:
                continue
            if events & _GONE:
                connection.is_gone = True
            yield connection, bool(events & (_GONE | _LEFT))

    def overdue(self, now: float) -> Iterator[Connection]:
        """Yield the connections that have not been opened in time."""
        while self._unopened and (self._unopened[0][1].is_open or self._unopened[0][0] <= now):
            _, connection = self._unopened.popleft()
            if not connection.is_open and not connection.is_closing and not connection.is_gone:
                yield connection

    def in_turn(self, now: float) -> Iterator[Connection]:
        """Yield the connections whose turn it is to be asked for how long they were silent."""
        if self._round is None:
            return
        elapsed, self._looked = min(now - self._looked, self._round), now
        self._share += len(self._connections) * elapsed / self._round
        number = min(int(self._share), len(self._connections) + 1)
        self._share -= int(self._share)
        for _ in range(number):
            descriptor = next(self._turns, None)
            if descriptor is None:
                self._turns = iter([*self._connections])
                continue
            connection = self._connections.get(descriptor)
            if connection is not None:
                yield connection

    def close(self) -> None:
        """Give the descriptor back."""
        self._epoll.close()
