"""Listeners that get the same bytes, and how a batch of events reaches them.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Final

from flask_sse._hub.batch import Batch
from flask_sse._hub.connection import Connection
from flask_sse._hub.listener import Listener
from flask_sse._system import syscalls

AT_ONCE: Final = 256
"""How many listeners get a batch before others may run."""


class Group:
    """The listeners of a channel that are live, or of several, in order of arrival.

    Their sockets have the same order in the kernel: with 10,000 clients, this order uses
    the processor's caches better than the order of a set.
    """

    __slots__ = ("_events", "_lagging", "_live", "_sizes", "_subscribers")

    def __init__(self) -> None:
        # Those that other threads read from, and those that are parts of a stream.
        self._subscribers: dict[Listener, None] = {}
        # By their descriptors: first those that are sent no chunks, then those that are.
        self._live: tuple[dict[int, Connection], dict[int, Connection]] = ({}, {})
        self._lagging: dict[int, Connection] = {}
        # What has been sent to the live connections, counted once for all of them: a connection
        # notes these numbers when it becomes live and when it is no longer live.
        self._events = 0
        self._sizes = [0, 0]

    @property
    def lagging(self) -> int:
        """How many clients have not received everything."""
        return len(self._lagging)

    def __bool__(self) -> bool:
        return any((self._subscribers, *self._live, self._lagging))

    def __iter__(self) -> Iterator[Listener]:
        """Iterate over a snapshot of the listeners."""
        connections = [one for live in self._live for one in live.values()]
        return iter([*self._subscribers, *connections, *self._lagging.values()])

    def refill(self, listener: Listener) -> Sequence[Listener]:
        """Continue with a listener that has taken everything.

        :return: the listeners that must be dropped, like the other methods here.
        """
        return ()

    def place(self, connection: Connection) -> Sequence[Listener]:
        """Add a connection to the lagging or the live ones, depending on its state."""
        self._discard_connection(connection)
        if connection.is_lagging:
            self._lagging[connection.descriptor] = connection
        else:
            self._live[connection.chunked][connection.descriptor] = connection
            connection.events -= self._events
            connection.size -= self._sizes[connection.chunked]
        return ()

    def discard(self, listener: Listener) -> None:
        """Forget a listener, if it is known."""
        self._subscribers.pop(listener, None)
        self._discard_connection(listener)

    def _go_live(self, listener: Listener) -> None:
        # Nothing else asks for the kind of a listener.
        if isinstance(listener, Connection):
            self.place(listener)
        else:
            self._subscribers[listener] = None

    def _send_to_connections(self, batch: Batch, pause: Callable[[], None]) -> list[Listener]:
        lost: list[Listener] = []
        # Before anything is sent: this batch counts for a connection that starts to lag with it.
        self._events += len(batch.payloads)
        for connection in [*self._lagging.values()]:
            if not connection.offer(batch):
                lost.append(connection)
        for chunked, connections in enumerate(self._live):
            if connections:
                data = batch.chunk if chunked else batch.frames
                self._sizes[chunked] += len(data)
                lost += self._send_live(connections, data, pause)
        return lost

    def _send_live(
        self, connections: dict[int, Connection], data: bytes, pause: Callable[[], None]
    ) -> list[Connection]:
        # The loops of `map` and `count` run in C: no Python code runs per event and client.
        # Between two slices, the interpreter may release the GIL.
        length = len(data)
        if len(connections) == 1:
            # Most sites have a channel for each user.
            [descriptor] = connections
            number = syscalls.send(descriptor, data, length, syscalls.FLAGS)
            if number == length:
                return []
            return self._keep_rests(connections, data, [(descriptor, number)])
        rests: list[tuple[int, int]] = []
        descriptors = iter(connections)
        while some := [*islice(descriptors, AT_ONCE)]:
            sent = [*map(syscalls.send, some, repeat(data), repeat(length), repeat(syscalls.FLAGS))]
            if sent.count(length) != len(some):
                rests += [pair for pair in zip(some, sent, strict=True) if pair[1] != length]
            pause()
        return self._keep_rests(connections, data, rests) if rests else []

    def _keep_rests(
        self, connections: dict[int, Connection], data: bytes, rests: Iterable[tuple[int, int]]
    ) -> list[Connection]:
        """Keep what the sockets have not accepted; return the connections that are gone."""
        lost: list[Connection] = []
        for descriptor, number in rests:
            connection = connections[descriptor]
            connection.keep_rest(data, number)
            if connection.is_lagging:
                self.place(connection)
            if connection.is_gone:
                lost.append(connection)
        return lost

    def _discard_connection(self, listener: Listener) -> None:
        descriptor = listener.descriptor
        for chunked, connections in enumerate(self._live):
            connection = connections.get(descriptor)
            if connection is not None and connection is listener:
                del connections[descriptor]
                connection.events += self._events
                connection.size += self._sizes[chunked]
        if self._lagging.get(descriptor) is listener:
            del self._lagging[descriptor]
