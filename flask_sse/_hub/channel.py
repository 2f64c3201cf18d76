"""A channel's listeners, and how a batch of events reaches them all.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, repeat
from typing import Final, Protocol

from flask_sse._hub.batch import Batch
from flask_sse._hub.connection import Connection
from flask_sse._hub.listener import Listener
from flask_sse._system import syscalls
from flask_sse._system.clock import monotonic

_AT_ONCE: Final = 256


class Report(Protocol):
    """Called when a batch has been sent to some listeners of a channel."""

    def __call__(
        self, channel: "Channel", batch: Batch, listeners: int, *, replayed: bool
    ) -> None: ...


class Channel:
    """The listeners of a channel, in order of arrival.

    Their sockets have the same order in the kernel: with 10,000 clients, this order uses
    the processor's caches better than the order of a set.
    """

    __slots__ = (
        "_events",
        "_lagging",
        "_live",
        "_sizes",
        "_subscribers",
        "_waiting",
        "name",
        "report",
        "sent",
    )

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.report: Report | None = None
        """Called after each batch."""
        self.sent = monotonic()
        self._waiting: dict[Listener, None] = {}
        # Those that other threads read from.
        self._subscribers: dict[Listener, None] = {}
        # The first key says whether they are sent chunks; the second is the descriptor.
        self._live: dict[bool, dict[int, Connection]] = {True: {}, False: {}}
        self._lagging: dict[int, Connection] = {}
        # What has been sent to the live connections, counted once for all of them: a connection
        # notes these numbers when it becomes live and when it is no longer live.
        self._events = 0
        self._sizes = {True: 0, False: 0}

    @property
    def lagging(self) -> int:
        """How many clients have not received everything."""
        return len(self._lagging)

    def __bool__(self) -> bool:
        return any((self._waiting, self._subscribers, *self._live.values(), self._lagging))

    def __iter__(self) -> Iterator[Listener]:
        """Iterate over a snapshot of the listeners."""
        connections = [*self._live[True].values(), *self._live[False].values()]
        return iter([*self._waiting, *self._subscribers, *connections, *self._lagging.values()])

    def add(self, listener: Listener) -> None:
        """Add a listener, which waits until the subscription is confirmed."""
        self._waiting[listener] = None

    def begin(self) -> list[Listener]:
        """Continue after Redis has confirmed a new subscription.

        :return: the listeners that must be dropped, like the other methods here.
        """
        return self.confirm()

    def confirm(self) -> list[Listener]:
        """Continue with the listeners that have waited for the subscription."""
        waiting, self._waiting = self._waiting, {}
        lost: list[Listener] = []
        for listener in waiting:
            if not listener.open():
                lost.append(listener)
            self._go_live(listener)
        return lost

    def refill(self, listener: Listener) -> list[Listener]:
        """Continue with a listener that has taken everything."""
        return []

    def place(self, connection: Connection) -> list[Listener]:
        """Add a connection to the lagging or the live ones, depending on its state."""
        self._discard_connection(connection)
        if connection.is_lagging:
            self._lagging[connection.descriptor] = connection
        else:
            self._live[connection.chunked][connection.descriptor] = connection
            connection.events -= self._events
            connection.size -= self._sizes[connection.chunked]
        return []

    def discard(self, listener: Listener) -> None:
        """Forget a listener, if it is known."""
        self._waiting.pop(listener, None)
        self._subscribers.pop(listener, None)
        self._discard_connection(listener)

    def send(self, batch: Batch, pause: Callable[[], None]) -> list[Listener]:
        """Send a batch to all listeners.

        :param pause: Called now and then, to let others run.
        :return: the listeners that have overflowed or are gone, which must be dropped.
        """
        self.sent = batch.time
        lost: list[Listener] = []
        # Before anything is sent: this batch counts for a connection that starts to lag with it.
        self._events += len(batch.payloads)
        number = len(self._lagging) + len(self._subscribers)
        for connection in [*self._lagging.values()]:
            if not connection.offer(batch):
                lost.append(connection)
        for chunked, connections in self._live.items():
            if connections:
                data = batch.chunk if chunked else batch.frames
                self._sizes[chunked] += len(data)
                number += len(connections)
                lost += self._send_live(connections, data, pause)
        for count, subscriber in enumerate([*self._subscribers], 1):
            if not subscriber.offer(batch):
                lost.append(subscriber)
            if count % _AT_ONCE == 0:
                pause()
        if self.report is not None:
            self.report(self, batch, number, replayed=False)
        return lost

    def _go_live(self, listener: Listener) -> None:
        # Nothing else asks for the kind of a listener.
        if isinstance(listener, Connection):
            self.place(listener)
        else:
            self._subscribers[listener] = None

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
        while some := [*islice(descriptors, _AT_ONCE)]:
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
        for chunked, connections in self._live.items():
            connection = connections.get(descriptor)
            if connection is not None and connection is listener:
                del connections[descriptor]
                connection.events += self._events
                connection.size += self._sizes[chunked]
        if self._lagging.get(descriptor) is listener:
            del self._lagging[descriptor]
