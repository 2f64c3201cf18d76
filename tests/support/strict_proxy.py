"""A TCP proxy in front of one Redis, which makes it as strict as some managed services are."""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from redis.crc import key_slot

from tests.support.cluster_node import ClusterNode
from tests.support.cluster_state import SLOTS, problem
from tests.support.processes import LOOPBACK
from tests.support.relay import Link, Relay
from tests.support.waiting import wait_until

Request = list[bytes]

_UNKNOWN_SCRIPT: Final = b"0" * 40
_REFUSAL: Final = b"return redis.error_reply('CROSSSLOT Keys and channel are not in one slot')"


class RequestReader:
    """Parses what clients send to Redis, in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Request]:
        """Return the requests that this data completes."""
        self._rest += data
        requests: list[Request] = []
        while (found := _parse(self._rest)) is not None:
            request, end = found
            requests.append(request)
            self._rest = self._rest[end:]
        return requests


class _Link(Link):
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        super().__init__(client, server)
        self.reader = RequestReader()


class StrictProxy(Relay[_Link]):
    """Relays to a node that owns all slots, and is known under this proxy's address only.

    What it refuses, it replaces by requests to which the node answers the same, so that answers
    keep their order:

    * PUBLISH becomes SPUBLISH;
    * scripts that publish on a channel with another slot than their keys are refused;
    * from time to time, no script is known.

    :param node: The node, which :func:`strict_proxy` starts.
    :param forgets_every: Each EVALSHA of this number is answered with NOSCRIPT.
    :param channel_argument: Which of the arguments of a script that publishes is the channel.
    """

    def __init__(
        self, node: ClusterNode, *, forgets_every: int = 5, channel_argument: int = 0
    ) -> None:
        super().__init__(node.port, _Link)
        self.node = node
        self.forgotten = 0
        """How many times a script was not known."""
        self.refused: list[Request] = []
        """The scripts' requests that were refused."""
        self._forgets_every = forgets_every
        self._channel_argument = channel_argument
        self._scripts = 0
        self._silent: set[bytes] = set()
        self._moves = False

    @property
    def url(self) -> str:
        """The URL for ``REDIS_URL``."""
        return f"redis+cluster://{LOOPBACK}:{self.port}"

    def move(self) -> None:
        """Close all connections, and continue at the same address without any script."""
        with self.moving():
            pass

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Close all connections, and each new one until the block ends."""
        self._moves = True
        wait_until(lambda: not self._links, "no connection is left")
        self.node.admin.script_flush()
        try:
            yield
        finally:
            self._moves = False

    def relay(self, link: _Link, data: bytes, *, from_client: bool) -> None:
        """Forward data, requests one by one."""
        if from_client:
            data = b"".join(_format(self._judge(request)) for request in link.reader.feed(data))
        link.send(data, from_client=from_client)

    def tick(self) -> None:
        """Close all connections during a move."""
        if self._moves:
            for link in [*self._links]:
                self.drop(link)

    def _judge(self, request: Request) -> Request:
        """Return the request that the node gets instead."""
        name = request[0].upper()
        if name == b"PUBLISH":
            return [b"SPUBLISH", *request[1:]]
        if name not in {b"EVAL", b"EVALSHA", b"EVAL_RO", b"EVALSHA_RO"}:
            return request
        if not self._has_one_slot(request):
            self.refused.append(request)
            return [b"EVAL", _REFUSAL, b"0"]
        if name.startswith(b"EVALSHA"):
            self._scripts += 1
            if self._scripts % self._forgets_every == 0:
                self.forgotten += 1
                return [name, _UNKNOWN_SCRIPT, *request[2:]]
        return request

    def _has_one_slot(self, request: Request) -> bool:
        if not request[0].upper().startswith(b"EVALSHA") and b"publish" not in request[1].lower():
            self._silent.add(hashlib.sha1(request[1], usedforsecurity=False).hexdigest().encode())
            return True
        if request[1].lower() in self._silent:
            return True
        number = int(request[2])
        keys, arguments = request[3 : 3 + number], request[3 + number :]
        channels = arguments[self._channel_argument :][:1]
        return not keys or len({key_slot(name) for name in [*keys, *channels]}) == 1


@contextmanager
def strict_proxy(
    folder: Path,
    program: str | None = None,
    *,
    forgets_every: int = 5,
    channel_argument: int = 0,
) -> Iterator[StrictProxy]:
    """Start a node that owns all slots, and a strict proxy in front of it.

    :param folder: The node's folder, which is made.
    """
    node = ClusterNode(folder, program, LOOPBACK)
    proxy = StrictProxy(node, forgets_every=forgets_every, channel_argument=channel_argument)
    node.options["cluster-announce-port"] = str(proxy.port)
    try:
        with proxy:
            node.start()
            node.ask("ADDSLOTSRANGE", 0, SLOTS - 1)
            wait_until(lambda: problem([node]) is None, "the node has all slots")
            yield proxy
    finally:
        node.close()


def _parse(data: bytes) -> tuple[Request, int] | None:
    """Return the first request, and where it ends; nothing if it is incomplete."""
    head, found, _ = data.partition(b"\r\n")
    if not found:
        return None
    assert head.startswith(b"*"), f"clients send arrays, not {head!r:.100}"
    position = len(head) + 2
    request: Request = []
    for _ in range(int(head[1:])):
        end = data.find(b"\r\n", position)
        if end < 0:
            return None
        position = end + 2 + int(data[position + 1 : end])
        request.append(data[end + 2 : position])
        position += 2
    return (request, position) if position <= len(data) else None


def _format(request: Request) -> bytes:
    parts = [b"$%d\r\n%b\r\n" % (len(part), part) for part in request]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))
