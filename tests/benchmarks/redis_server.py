"""The Redis that a run publishes through: a real one, fresh for each system, nothing on disk."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis

from .processes import LOOPBACK, free_port, running
from .usage import ProcessTree

_NAME: Final = "benchmark"
_RESERVED: Final = 64
"""File descriptors that redis-server keeps for itself and refuses to give to clients."""


class RedisServer:
    """A running redis-server, and a connection to ask it about itself."""

    def __init__(self, port: int, tree: ProcessTree) -> None:
        """Connect to the server at ``port``."""
        self.port = port
        self.tree = tree
        self.client: redis.Redis = redis.Redis(port=port, client_name=_NAME, decode_responses=True)

    @property
    def url(self) -> str:
        """The URL for an application's configuration."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def subscribers(self) -> int:
        """Return how many connections listen to the default channel."""
        [(_, count)] = self.client.pubsub_numsub("sse")
        return int(count)

    def connections(self, kind: str, publisher: tuple[str, int]) -> int:
        """Return how many connections of ``kind`` there are, without the harness's own two."""
        own = f"{publisher[0]}:{publisher[1]}"
        clients = self.client.client_list(_type=kind)
        return sum(client["name"] != _NAME and client["addr"] != own for client in clients)


@contextmanager
def redis_server(core: int, logs: Path) -> Iterator[RedisServer]:
    """Run a redis-server for as long as the block lasts."""
    port = free_port()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    options = {
        "port": port,
        "bind": LOOPBACK,
        "save": "",
        "appendonly": "no",
        "maxclients": files - _RESERVED,
        "tcp-backlog": 4096,
        "dir": logs,
    }
    command = [
        "redis-server",
        *(part for name, value in options.items() for part in (f"--{name}", str(value))),
    ]
    with running(command, cores=[core], log=logs / "redis-server.log", port=port) as pid:
        server = RedisServer(port, ProcessTree(pid))
        try:
            yield server
        finally:
            server.client.close()
