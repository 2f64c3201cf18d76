"""The load generator: many clients in one process and one thread, every delivery checked.

One ``epoll``, non-blocking sockets, one ``recv`` for each readiness. Taking the bytes apart is
shared among clients (see :mod:`.eventstream`), so a delivery costs the generator a few
microseconds and the server stays the slower side.
"""

from __future__ import annotations

import select
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from .events import event_data
from .eventstream import CHUNKED, ENDED, PLAIN, GarbledError, Rest, Run, StreamParser
from .processes import LOOPBACK
from .publishers import Publisher

_READ: Final = 1 << 16
_OPENING: Final = 64
"""Clients that may wait for their first bytes at the same time: fewer than any server's backlog."""
_CLIENTS_AN_ADDRESS: Final = 10_000
"""Clients with the same source address, which has about 28,000 ports for them on Linux."""
_NOTES: Final = 5

Receipt = tuple[float, Run]
"""When a read brought which events. A bare tuple, as one is made for every read."""


class OpenError(Exception):
    """A stream was refused, or not answered in time."""


@dataclass
class Faults:
    """What must not happen. A run with any of it fails."""

    lost: int = 0
    doubled: int = 0
    unordered: int = 0
    foreign: int = 0
    garbled: int = 0
    ended: int = 0
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Tell whether there was any."""
        return any(
            (self.lost, self.doubled, self.unordered, self.foreign, self.garbled, self.ended)
        )

    def __str__(self) -> str:
        """Count them by kind, with the first few in detail."""
        kinds = ("lost", "doubled", "unordered", "foreign", "garbled", "ended")
        counts = ", ".join(f"{getattr(self, kind)} {kind}" for kind in kinds if getattr(self, kind))
        return "; ".join([counts or "none", *self.notes])

    def note(self, text: str) -> None:
        """Keep ``text`` if it is among the first."""
        if len(self.notes) < _NOTES:
            self.notes.append(text)


@dataclass(slots=True)
class Client:
    """One open stream: what it listens to, what it has read, which event comes next."""

    socket: socket.socket
    channel: int
    expected: int
    head: bytes = b""
    rest: Rest | None = None
    missing: set[int] = field(default_factory=set)


class Load:
    """Clients of one server, and the publisher whose events they receive."""

    def __init__(
        self, port: int, publisher: Publisher, clients_an_address: int = _CLIENTS_AN_ADDRESS
    ) -> None:
        """Make a generator without clients for the server at ``port`` of the loopback interface.

        The first ``clients_an_address`` clients connect from 127.0.0.1, as many from 127.0.0.2, and
        so on.
        """
        self.receipts: list[Receipt] = []
        self.published: defaultdict[int, list[float]] = defaultdict(list)
        self.faults = Faults()
        self.arrived = 0
        self.open = 0
        self._port = port
        self._publisher = publisher
        self._parser = StreamParser()
        self._clients: dict[int, Client] = {}
        self._clients_an_address = clients_an_address
        self._asked = 0
        self._watched: dict[int, Callable[[], None]] = {}
        self._epoll = select.epoll()
        for connection in publisher.connections:
            self.watch(connection.socket, connection.read_answers)

    def close(self) -> None:
        """Close all clients."""
        for client in self._clients.values():
            client.socket.close()
        self._clients.clear()
        self._epoll.close()

    def watch(self, other: socket.socket, read: Callable[[], None]) -> None:
        """Have :meth:`poll` call ``read`` whenever ``other`` has something to read."""
        self._watched[other.fileno()] = read
        self._epoll.register(other.fileno(), select.EPOLLIN)

    def unwatch(self, other: socket.socket) -> None:
        """Watch ``other`` no longer. To be called before it is closed."""
        del self._watched[other.fileno()]
        self._epoll.unregister(other.fileno())

    def connect(
        self, channels: Sequence[int], opened: Callable[[], int] | None, seconds: float
    ) -> None:
        """Open one stream for each of ``channels`` and return when all are open.

        A stream is open with its response's headers. For a server that sends none before the first
        event, ``opened`` counts its streams in another way.
        """
        deadline = time.monotonic() + seconds
        base, asked = opened() if opened else self.open, 0
        while (done := (opened() if opened else self.open) - base) < len(channels):
            for channel in channels[asked : done + _OPENING]:
                self._ask(channel)
                asked += 1
            self.poll(0.002 if opened else 0.1)
            if self.faults or time.monotonic() > deadline:
                raise OpenError(
                    f"{done} of {len(channels)} streams opened within {seconds:g} s; "
                    f"faults: {self.faults}"
                )

    def publish(self, channel: int, count: int = 1) -> None:
        """Publish the next ``count`` events of ``channel`` at once."""
        times = self.published[channel]
        events = [event_data(channel, number) for number in range(len(times), len(times) + count)]
        times.extend([time.perf_counter()] * count)
        self._publisher.publish(channel_name(channel), events)

    def publish_in_turn(self, channel: int, count: int, seconds: float) -> None:
        """Publish the next ``count`` events of ``channel``, each once the one before was answered.

        That is what ``sse.publish()`` does in a loop. Clients are read meanwhile.
        """
        deadline = time.monotonic() + seconds
        for _ in range(count):
            answered = self._publisher.answered
            self.publish(channel)
            while self._publisher.answered == answered and time.monotonic() < deadline:
                self.poll(0.1)

    def poll(self, seconds: float) -> None:
        """Read all that has come, waiting at most ``seconds`` for it."""
        most = len(self._clients) + len(self._watched)
        for descriptor, _ in self._epoll.poll(max(seconds, 0.0), most):
            if client := self._clients.get(descriptor):
                self._receive(client)
            elif read := self._watched.get(descriptor):
                read()

    def await_arrivals(self, total: int, seconds: float) -> bool:
        """Read until ``total`` deliveries have arrived; tell whether they did in ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.arrived < total and time.monotonic() < deadline and self._clients:
            self.poll(0.1)
        return self.arrived >= total

    def channels(self) -> list[int]:
        """Return the channels that are listened to."""
        return sorted({client.channel for client in self._clients.values()})

    def verdict(self) -> Faults:
        """Add what never arrived to the faults and return them. To be called once, at the end."""
        for client in self._clients.values():
            lost = len(self.published[client.channel]) - client.expected + len(client.missing)
            self.faults.lost += lost
            if lost:
                self.faults.note(f"a client of channel {client.channel} lacks {lost}")
        return self.faults

    def _ask(self, channel: int) -> None:
        """Connect one client and send its request: neither waits on the loopback interface."""
        client = self._connected()
        request = f"GET /stream?channel={channel_name(channel)} HTTP/1.1\r\nHost: bench\r\n"
        client.sendall(f"{request}Accept: text/event-stream\r\n\r\n".encode())
        client.setblocking(False)
        self._clients[client.fileno()] = Client(client, channel, len(self.published[channel]))
        self._epoll.register(client.fileno(), select.EPOLLIN)

    def _connected(self) -> socket.socket:
        """Connect one client from the address whose turn it is."""
        source = f"127.0.0.{1 + self._asked // self._clients_an_address}"
        self._asked += 1
        client = socket.socket()
        client.settimeout(10.0)
        # Choose the port in connect(), when the server is known: then those that are still kept
        # for closed connections to other servers are free.
        client.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
        client.bind((source, 0))
        client.connect((LOOPBACK, self._port))
        return client

    def _receive(self, client: Client) -> None:
        """Read once from ``client`` and check what came."""
        try:
            data = client.socket.recv(_READ)
        except BlockingIOError:
            return
        except ConnectionError as error:
            self._end(client, str(error))
            return
        now = time.perf_counter()
        if not data:
            self._end(client, "the server closed a stream")
            return
        try:
            self._take(client, data, now)
        except GarbledError as error:
            self.faults.garbled += 1
            self._end(client, str(error))

    def _take(self, client: Client, data: bytes, now: float) -> None:
        """Take note of the events in ``data``."""
        if client.rest is None:
            data = self._head(client, data)
            if client.rest is None:
                return
        client.rest, runs = self._parser.parse(client.rest, data)
        for run in runs:
            if run.first == client.expected and run.channel == client.channel:
                client.expected = run.last + 1
            else:
                self._check(client, run)
            self.arrived += run.last - run.first + 1
            self.receipts.append((now, run))
        if client.rest.due == ENDED:
            self._end(client, "the server ended a stream")

    def _head(self, client: Client, data: bytes) -> bytes:
        """Read the response's head and return what follows it."""
        head, end, body = (client.head + data).partition(b"\r\n\r\n")
        if not end:
            client.head = head
            return b""
        status, _, fields = head.partition(b"\r\n")
        if b" 200 " not in status + b" " or b"text/event-stream" not in fields:
            raise GarbledError(f"no event stream: {head[:200]!r}")
        client.head = b""
        client.rest = CHUNKED if b"transfer-encoding: chunked" in fields.lower() else PLAIN
        self.open += 1
        return body

    def _check(self, client: Client, run: Run) -> None:
        """Say what is wrong with events that are not the next ones of ``client``."""
        if run.channel != client.channel:
            self.faults.foreign += 1
            self.faults.note(f"channel {client.channel} was sent {run}")
            return
        for number in range(run.first, run.last + 1):
            if number >= client.expected:
                client.missing.update(range(client.expected, number))
                client.expected = number + 1
            elif number in client.missing:
                client.missing.remove(number)
                self.faults.unordered += 1
            else:
                self.faults.doubled += 1
        self.faults.note(f"channel {client.channel} was sent {run} out of turn")

    def _end(self, client: Client, why: str) -> None:
        """Count a stream that ended and release it, with its events still expected."""
        lost = len(self.published[client.channel]) - client.expected + len(client.missing)
        self.faults.ended += 1
        self.faults.lost += lost
        self.faults.note(why)
        del self._clients[client.socket.fileno()]
        client.socket.close()


def channel_name(channel: int) -> str:
    """Return the name of a channel; the first one is Flask-SSE's default."""
    return f"c{channel}" if channel else "sse"
