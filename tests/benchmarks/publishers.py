"""How events are handed to the systems: through Redis, to nchan over HTTP, to the floor as lines.

A publisher writes all events that it is given in one go and reads the answers later, when the load
generator's loop says that there are some: it never waits, so clients are read meanwhile.
"""

from __future__ import annotations

import json
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot

_TIMEOUT: Final = 10.0
_READ: Final = 1 << 16


class PublishError(Exception):
    """A system refused an event."""


class Publisher(ABC):
    """Carries events to one system."""

    @property
    @abstractmethod
    def connections(self) -> Sequence[Connection]:
        """Return the connections whose answers must be read."""

    @property
    def answered(self) -> int:
        """Return how many events were accepted."""
        return sum(one.accepted_events for one in self.connections)

    @abstractmethod
    def publish(self, channel: str, events: Sequence[bytes]) -> None:
        """Send all ``events`` to ``channel`` at once."""

    def close(self) -> None:
        """Close the connections."""
        for one in self.connections:
            one.socket.close()


class Connection(Publisher):
    """A connection that carries events to one system."""

    accepted: ClassVar[re.Pattern[bytes]]
    """What in the answers says that one event was accepted."""
    refused: ClassVar[re.Pattern[bytes]]
    """What in the answers says that one was not."""

    def __init__(self, address: tuple[str, int]) -> None:
        """Connect to ``address``."""
        self.socket = socket.create_connection(address, _TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted_events = 0
        self._unread = b""

    @property
    def connections(self) -> Sequence[Connection]:
        """Return itself."""
        return (self,)

    def publish(self, channel: str, events: Sequence[bytes]) -> None:
        """Send all ``events`` to ``channel`` at once."""
        self.socket.sendall(b"".join(self.request(channel, data) for data in events))

    def read_answers(self) -> None:
        """Read the answers that have come and count them; raise for one that is a refusal."""
        answers = self.socket.recv(_READ)
        if not answers:
            raise PublishError("the connection was closed")
        self._unread += answers
        if refusal := self.refused.search(self._unread):
            raise PublishError(refusal[0].decode(errors="replace"))
        end = 0
        for answer in self.accepted.finditer(self._unread):
            self.accepted_events += 1
            end = answer.end()
        self._unread = self._unread[end:]

    @abstractmethod
    def request(self, channel: str, data: bytes) -> bytes:
        """Return what publishes one event."""


class RedisPublisher(Connection):
    """``PUBLISH`` of the JSON object that both Flask-SSE 1.0 and 2.0 put into Redis."""

    accepted = re.compile(rb":\d+\r\n")
    refused = re.compile(rb"-[A-Z]+ [^\r]*")
    command: ClassVar[bytes] = b"PUBLISH"

    def request(self, channel: str, data: bytes) -> bytes:
        """Return the command in Redis's own protocol."""
        name = channel.encode()
        payload = json.dumps({"data": data.decode()}).encode()
        parts = (self.command, name, payload)
        return b"*3\r\n%b" % b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class ShardPublisher(RedisPublisher):
    """``SPUBLISH`` of the same to one node of a cluster."""

    command = b"SPUBLISH"


class ClusterPublisher(Publisher):
    """A connection to each node of a cluster whose slots are shared out evenly, in order."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Connect to all nodes."""
        self._shards = [ShardPublisher(address) for address in addresses]

    @property
    def connections(self) -> Sequence[Connection]:
        """Return those to the nodes."""
        return self._shards

    def publish(self, channel: str, events: Sequence[bytes]) -> None:
        """Send all ``events`` to the node of ``channel`` at once."""
        number = key_slot(channel.encode()) * len(self._shards) // SLOTS
        self._shards[number].publish(channel, events)


class HttpPublisher(Connection):
    """A ``POST`` for each event over one connection kept alive: nchan's cheapest way in."""

    accepted = re.compile(rb"HTTP/1\.1 2\d\d ")
    refused = re.compile(rb"HTTP/1\.1 [^2]\d\d [^\r]*")

    def request(self, channel: str, data: bytes) -> bytes:
        """Return the request."""
        head = f"POST /publish?channel={channel} HTTP/1.1\r\nHost: bench\r\n"
        return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


class LinePublisher(Connection):
    """A line with channel and event, answered with a dot: all that the floor in C understands."""

    accepted = re.compile(rb"\.")
    refused = re.compile(rb"[^.]+")

    def request(self, channel: str, data: bytes) -> bytes:
        """Return the line."""
        return channel.encode() + b" " + data + b"\n"
