"""The floor in Python: a single loop that does what no server can do without.

``floor.py PORT``: one Redis connection subscribes to each channel that a client asks for. For each
event, the loop waits, reads it, decodes its JSON, frames it, and calls ``send()`` once per client.
No disconnected client is handled but for closing its socket, no header is read, nothing is
checked.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
from collections import defaultdict
from typing import Final
from urllib.parse import urlsplit

_READ: Final = 1 << 16
_CHANNEL: Final = re.compile(rb"channel=(\S+)")
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n:\n\n\r\n"
)

_MESSAGE_LINES: Final = 7
"""Lines of an event from Redis: four lengths, and ``message``, the channel, the data."""
_REPLY_LINES: Final = 6
"""Lines of a confirmed subscription: three lengths, ``subscribe``, the channel, the number."""


class Floor:
    """The loop and its connections."""

    def __init__(self, port: int, redis: tuple[str, int]) -> None:
        """Listen, and connect to Redis."""
        self._door = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._redis = socket.create_connection(redis)
        self._redis.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._clients: dict[int, socket.socket] = {}
        self._channels: dict[int, bytes] = {}
        self._subscribing: defaultdict[bytes, list[socket.socket]] = defaultdict(list)
        self._listening: defaultdict[bytes, list[socket.socket]] = defaultdict(list)
        self._epoll = select.epoll()
        for each in (self._door, self._redis):
            self._epoll.register(each.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Do it for ever."""
        door, redis = self._door.fileno(), self._redis.fileno()
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == redis:
                    self._receive()
                elif descriptor == door:
                    self._accept()
                else:
                    self._serve(self._clients[descriptor])

    def _receive(self) -> None:
        """Read from Redis. Without a line end in JSON, its lengths need not be read."""
        lines = (self._rest + self._redis.recv(_READ)).split(b"\r\n")
        at, end = 0, len(lines) - 1
        while end - at >= _REPLY_LINES:
            if lines[at + 2] != b"message":
                self._confirm(lines[at + 4])
                at += _REPLY_LINES
            elif end - at >= _MESSAGE_LINES:
                self._deliver(lines[at + 4], lines[at + 6])
                at += _MESSAGE_LINES
            else:
                break
        self._rest = b"\r\n".join(lines[at:])

    def _deliver(self, channel: bytes, message: bytes) -> None:
        """Send an event to all clients of a channel."""
        data: str = json.loads(message)["data"]
        frame = b"data:%b\n\n" % data.encode()
        chunk = b"%x\r\n%b\r\n" % (len(frame), frame)
        for client in self._listening[channel]:
            client.send(chunk)

    def _confirm(self, channel: bytes) -> None:
        """Answer the clients that have asked for a channel, now that its events will arrive."""
        for client in self._subscribing.pop(channel, ()):
            client.send(_HEAD)
            self._listening[channel].append(client)

    def _accept(self) -> None:
        """Accept a client."""
        client, _ = self._door.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[client.fileno()] = client
        self._epoll.register(client.fileno(), select.EPOLLIN)

    def _serve(self, client: socket.socket) -> None:
        """Read a request, which is short enough to arrive at once, or the end."""
        request = client.recv(_READ)
        descriptor = client.fileno()
        if found := _CHANNEL.search(request):
            channel = self._channels[descriptor] = found[1]
            self._subscribing[channel].append(client)
            self._redis.sendall(b"*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%b\r\n" % (len(channel), channel))
            return
        if channel := self._channels.pop(descriptor, b""):
            self._listening[channel].remove(client)
        del self._clients[descriptor]
        self._epoll.unregister(descriptor)
        client.close()


if __name__ == "__main__":
    address = urlsplit(os.environ["REDIS_URL"])
    Floor(int(sys.argv[1]), (address.hostname or "", address.port or 0)).run()
