"""A node of a Redis Cluster in this process, which says and refuses what a test wants."""

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Self, cast

from flask_sse._redis.resp import Reader
from flask_sse._redis.url import Address
from tests.support.processes import LOOPBACK

Command = list[bytes]


class ScriptedNode:
    """Answers CLUSTER SLOTS, SSUBSCRIBE and SUNSUBSCRIBE, each connection in its own thread."""

    def __init__(self) -> None:
        self.owners: list[tuple[int, int, ScriptedNode]] = []
        """What it says about the slots: the first, the last, and their primary."""
        self.slots_error: str | None = None
        """The error with which it refuses to say that."""
        self.errors: dict[bytes, str] = {}
        """The errors with which it refuses subscriptions, for each channel."""
        self.is_down = False
        """Whether it closes each new connection."""
        self.may_answer = threading.Event()
        """Cleared to hold the answers to CLUSTER SLOTS, which are made before that."""
        self.may_answer.set()
        self.asked: Counter[bytes] = Counter()
        """How often it was asked to do what, for example ``SSUBSCRIBE x``."""
        self.accepted = 0
        """How many connections there have been."""
        self.on_command: Callable[[Command], bytes | None] = lambda _: None
        """Returns an answer that replaces the usual one."""
        self._connections: dict[socket.socket, set[bytes]] = {}
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((LOOPBACK, 0))
        self.address = Address(LOOPBACK, self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.may_answer.set()
        self.is_down = True
        # This ends `accept`, which `close` alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def subscribed(self) -> list[bytes]:
        """The channels to which its connections are subscribed."""
        return sorted(name for names in [*self._connections.values()] for name in [*names])

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def cut(self) -> None:
        """Close all connections."""
        for connection in [*self._connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def send(self, kind: bytes, channel: bytes, last: bytes | int) -> None:
        """Send something to the connections that are subscribed to a channel."""
        for connection, names in [*self._connections.items()]:
            if channel in names:
                connection.sendall(encode([kind, channel, last]))

    def withdraw(self, channel: bytes) -> None:
        """End the subscriptions to a channel."""
        self.send(b"sunsubscribe", channel, 0)
        for names in [*self._connections.values()]:
            names.discard(channel)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.is_down:
                connection.close()
                continue
            self._connections[connection] = set()
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        reader = Reader()
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                for command in cast("list[Command]", reader.feed(data)):
                    connection.sendall(self._answer(connection, command))
        del self._connections[connection]

    def _answer(self, connection: socket.socket, command: Command) -> bytes:
        self.asked[b" ".join(command)] += 1
        special = self.on_command(command)
        if special is not None:
            return special
        match command:
            case [b"CLUSTER", b"SLOTS"]:
                answer = self._slots()
                self.may_answer.wait()
                return answer
            case [b"SSUBSCRIBE", channel]:
                if (error := self.errors.get(channel)) is not None:
                    return b"-%b\r\n" % error.encode()
                self._connections[connection].add(channel)
                return encode([b"ssubscribe", channel, 1])
            case [b"SUNSUBSCRIBE", channel]:
                self._connections[connection].discard(channel)
                return encode([b"sunsubscribe", channel, 0])
            case _:
                return b"+OK\r\n"

    def _slots(self) -> bytes:
        if self.slots_error is not None:
            return b"-%b\r\n" % self.slots_error.encode()
        return encode(
            [
                [first, last, [node.address.host.encode(), node.address.port, b"id"]]
                for first, last, node in self.owners
            ]
        )


def encode(reply: Iterable[object] | bytes | int) -> bytes:
    """Return a reply as a node sends it."""
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    parts = [encode(cast("bytes", part)) for part in reply]
    return b"*%d\r\n" % len(parts) + b"".join(parts)
