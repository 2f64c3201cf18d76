"""A channel's listeners, and how a batch of events reaches them all.

Only the hub's owner uses it. Nothing blocks except the `pause` function that is passed in.
"""

import time
from collections.abc import Callable, Iterator
from itertools import islice, repeat
from typing import Final, Protocol

from flask_sse import _syscalls
from flask_sse._connection import Connection
from flask_sse._subscriber import Batch, Subscriber

Listener = Subscriber | Connection
"""A subscriber, which another thread reads from, or a connection, which the owner writes to."""

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
        self.sent = time.monotonic()
        self._waiting: dict[Listener, None] = {}
        self._subscribers: dict[Subscriber, None] = {}
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

    def confirm(self) -> list[Connection]:
        """Tell all waiting listeners that Redis has confirmed the subscription.

        :return: the connections that are gone.
        """
        waiting, self._waiting = self._waiting, {}
        gone: list[Connection] = []
        for listener in waiting:
            if isinstance(listener, Subscriber):
                listener.confirm()
                self._subscribers[listener] = None
            else:
                listener.open()
                self.place(listener)
                if listener.is_gone:
                    gone.append(listener)
        return gone

    def place(self, connection: Connection) -> None:
        """Add a connection to the lagging or the live ones, depending on its state."""
        self._discard_connection(connection)
        if connection.is_lagging:
            self._lagging[connection.descriptor] = connection
        else:
            self._live[connection.chunked][connection.descriptor] = connection
            connection.events -= self._events
            connection.size -= self._sizes[connection.chunked]

    def discard(self, listener: Listener) -> None:
        """Forget a listener, if it is known."""
        self._waiting.pop(listener, None)
        if isinstance(listener, Subscriber):
            self._subscribers.pop(listener, None)
        else:
            self._discard_connection(listener)

    def send(self, batch: Batch, pause: Callable[[], None]) -> list[Listener]:
        """Send a batch to all listeners.

        :param pause: Called now and then, to let others run.
        :return: the listeners that have overflowed or are gone.
        """
        self.sent = batch.time
        troubled: list[Listener] = []
        # Before anything is sent: this batch counts for a connection that starts to lag with it.
        self._events += len(batch.payloads)
        number = len(self._lagging) + len(self._subscribers)
        for connection in [*self._lagging.values()]:
            connection.send(batch)
            if connection.is_gone:
                troubled.append(connection)
        for chunked, connections in self._live.items():
            if connections:
                data = batch.chunk if chunked else batch.frames
                self._sizes[chunked] += len(data)
                number += len(connections)
                troubled += self._send_live(connections, data, pause)
        for count, subscriber in enumerate([*self._subscribers], 1):
            if not subscriber.offer(batch):
                troubled.append(subscriber)
            if count % _AT_ONCE == 0:
                pause()
        if self.report is not None:
            self.report(self, batch, number, replayed=False)
        return troubled

    def _send_live(
        self, connections: dict[int, Connection], data: bytes, pause: Callable[[], None]
    ) -> list[Connection]:
        # The loops of `map` and `count` run in C: no Python code runs per event and client.
        # Between two slices, the interpreter may release the GIL.
        length = len(data)
        rests: list[tuple[int, int]] = []
        descriptors = iter(connections)
        while some := [*islice(descriptors, _AT_ONCE)]:
            sent = [
                *map(_syscalls.send, some, repeat(data), repeat(length), repeat(_syscalls.FLAGS))
            ]
            if sent.count(length) != len(some):
                rests += [pair for pair in zip(some, sent, strict=True) if pair[1] != length]
            pause()
        troubled: list[Connection] = []
        for descriptor, number in rests:
            connection = connections[descriptor]
            connection.keep_rest(data, number)
            if connection.is_lagging:
                self.place(connection)
            if connection.is_gone:
                troubled.append(connection)
        return troubled

    def _discard_connection(self, connection: Connection) -> None:
        descriptor, chunked = connection.descriptor, connection.chunked
        if self._live[chunked].get(descriptor) is connection:
            del self._live[chunked][descriptor]
            connection.events += self._events
            connection.size += self._sizes[chunked]
        if self._lagging.get(descriptor) is connection:
            del self._lagging[descriptor]
