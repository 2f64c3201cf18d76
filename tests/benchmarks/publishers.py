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

_TIMEOUT: Final = 10.0
_READ: Final = 1 << 16


class PublishError(Exception):
    """A system refused an event."""


class Publisher(ABC):
    """A connection that carries events to one system."""

    accepted: ClassVar[re.Pattern[bytes]]
    """What in the answers says that one event was accepted."""
    refused: ClassVar[re.Pattern[bytes]]
    """What in the answers says that one was not."""

    def __init__(self, address: tuple[str, int]) -> None:
        """Connect to ``address``."""
        self.socket = socket.create_connection(address, _TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answered = 0
        self._unread = b""

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
            self.answered += 1
            end = answer.end()
        self._unread = self._unread[end:]

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    @abstractmethod
    def request(self, channel: str, data: bytes) -> bytes:
        """Return what publishes one event."""


class RedisPublisher(Publisher):
    """``PUBLISH`` of the JSON object that both Flask-SSE 1.0 and 2.0 put into Redis."""

    accepted = re.compile(rb":\d+\r\n")
    refused = re.compile(rb"-[A-Z]+ [^\r]*")

    def request(self, channel: str, data: bytes) -> bytes:
        """Return the command in Redis's own protocol."""
        name = channel.encode()
        payload = json.dumps({"data": data.decode()}).encode()
        arguments = (len(name), name, len(payload), payload)
        return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % arguments


class HttpPublisher(Publisher):
    """A ``POST`` for each event over one connection kept alive: nchan's cheapest way in."""

    accepted = re.compile(rb"HTTP/1\.1 2\d\d ")
    refused = re.compile(rb"HTTP/1\.1 [^2]\d\d [^\r]*")

    def request(self, channel: str, data: bytes) -> bytes:
        """Return the request."""
        head = f"POST /publish?channel={channel} HTTP/1.1\r\nHost: bench\r\n"
        return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


class LinePublisher(Publisher):
    """A line for each event, answered with a dot each: all that the floor understands."""

    accepted = re.compile(rb"\.")
    refused = re.compile(rb"[^.]+")

    def request(self, channel: str, data: bytes) -> bytes:
        """Return the line."""
        return data + b"\n"
