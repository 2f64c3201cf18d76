"""The connections that a hub's loop serves: which are writable, gone, or silent.

Only the hub's loop uses it. Nothing blocks.
"""

import select
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from flask_sse._event.channel_name import Key
from flask_sse._event.message import COMMENT
from flask_sse._hub.batch import Batch
from flask_sse._hub.connection import Connection
from flask_sse._hub.listener import Listener
from flask_sse._system import syscalls
from flask_sse._system.poller import Poller

# Edge-triggered: a connection is registered once for all events, and a connection that a
# forked child still holds can't wake the loop again and again.
_EVENTS: Final = select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET if syscalls.AVAILABLE else 0
_GONE: Final = select.EPOLLERR | select.EPOLLHUP if syscalls.AVAILABLE else 0
_LEFT: Final = select.EPOLLRDHUP if syscalls.AVAILABLE else 0


class Clients:
    """The connections by descriptor.

    :param poller: Watches them.
    :param keepalive: A comment is due within this many seconds of silence, or never if `None`.
    """

    def __init__(self, poller: Poller, keepalive: float | None) -> None:
        self._poller = poller
        self._connections: dict[int, Connection] = {}
        self._unopened: deque[tuple[float, Connection]] = deque()
        # Each connection is checked four times in that time; a connection that has been silent
        # for three quarters of it gets a comment.
        self._round = None if keepalive is None else keepalive / 4
        self._silence = 0.0 if keepalive is None else keepalive * 0.75
        self._turns: Iterator[int] = iter(())
        self._looked = 0.0
        self._share = 0.0

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over a snapshot of the connections."""
        return iter([*self._connections.values()])

    def add(self, connection: Connection, open_by: float) -> None:
        """Serve a connection, which must be open by the time *open_by*.

        :raises OSError: if it can't be watched.
        """
        self._poller.register(connection.descriptor, _EVENTS)
        self._connections[connection.descriptor] = connection
        self._unopened.append((open_by, connection))

    def discard(self, listener: Listener) -> None:
        """Stop serving a connection, if it is known; must be called before it is closed."""
        descriptor = listener.descriptor
        if self._connections.get(descriptor) is listener:
            del self._connections[descriptor]
            self._poller.forget(descriptor)

    def look_up(self, descriptor: int, events: int) -> tuple[Connection | None, bool]:
        """Return the connection that the events belong to, and whether its client has left.

        A client that has closed only its own side is still told that the stream has ended.
        """
        connection = self._connections.get(descriptor)
        if connection is not None and events & _GONE:
            connection.is_gone = True
        return connection, bool(events & (_GONE | _LEFT))

    def overdue(self, now: float) -> Iterator[Connection]:
        """Yield the connections that have not been opened in time."""
        while self._unopened and (self._unopened[0][1].is_open or self._unopened[0][0] <= now):
            _, connection = self._unopened.popleft()
            if not connection.is_open and not connection.is_closing and not connection.is_gone:
                yield connection

    def comment(
        self, now: float, sent: Callable[[Key], float | None], pause: Callable[[], None]
    ) -> Iterator[Connection]:
        """Send a comment to the connections that are next to be checked and have been silent.

        :param sent: Returns when the listeners of a channel, or of several, last got an event.
        :param pause: Called for each connection, to let others run.
        :return: those that have not taken all of it.
        """
        comment = Batch((), COMMENT)
        for connection in self._in_turn(now):
            pause()
            last = sent(connection.channel)
            if last is None or not connection.is_open or connection.is_lagging:
                continue
            if now - max(last, connection.commented) >= self._silence:
                connection.commented = now
                connection.send(comment)
                if connection.is_gone or connection.is_lagging:
                    yield connection

    def _in_turn(self, now: float) -> Iterator[Connection]:
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
