"""The Redis or the cluster that a run publishes through: fresh for each system, not on disk."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS

from .processes import LOOPBACK, await_condition, free_port, running
from .usage import ProcessTree

_NAME: Final = "benchmark"
_NODES: Final = 3
_MEET_SECONDS: Final = 30.0
_RESERVED: Final = 64
"""File descriptors that redis-server keeps for itself and refuses to give to clients."""


class RedisServer:
    """A running redis-server, and a connection to ask it about itself."""

    def __init__(self, port: int, pid: int) -> None:
        """Connect to the server at ``port``."""
        self.port = port
        self.pid = pid
        self.tree = ProcessTree(pid)
        self.client: redis.Redis = redis.Redis(port=port, client_name=_NAME, decode_responses=True)

    @property
    def url(self) -> str:
        """The URL for an application's configuration."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def subscribers(self) -> int:
        """Return how many connections listen to the default channel."""
        [(_, count)] = self.client.pubsub_numsub("sse")
        return int(count)

    def connections(self, kind: str, publishers: Collection[tuple[str, int]]) -> int:
        """Return how many connections of ``kind`` there are, without the harness's own."""
        own = [f"{host}:{port}" for host, port in publishers]
        clients = self.client.client_list(_type=kind)
        return sum(client["name"] != _NAME and client["addr"] not in own for client in clients)


class RedisCluster:
    """Several of them that form a cluster, each with the same number of slots."""

    def __init__(self, nodes: Sequence[RedisServer]) -> None:
        """Join the servers, which have just been started."""
        self.nodes = nodes
        self.tree = ProcessTree(*(node.pid for node in nodes))
        first = nodes[0]
        bounds = [number * SLOTS // len(nodes) for number in range(len(nodes) + 1)]
        for node, (begin, end) in zip(nodes, itertools.pairwise(bounds), strict=True):
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", begin, end - 1)
            node.client.execute_command("CLUSTER SET-CONFIG-EPOCH", nodes.index(node) + 1)
        for node in nodes[1:]:
            [bus] = node.client.config_get("cluster-port").values()
            first.client.execute_command("CLUSTER MEET", LOOPBACK, node.port, bus)
        await_condition(self._is_complete, _MEET_SECONDS, "a cluster")

    @property
    def url(self) -> str:
        """The URL for an application's configuration."""
        return "redis+cluster://" + ",".join(f"{LOOPBACK}:{node.port}" for node in self.nodes)

    def subscribers(self) -> int:
        """Return how many connections listen to the default channel."""
        counts = [node.client.pubsub_shardnumsub("sse", target_nodes=None) for node in self.nodes]
        return sum(int(count) for [(_, count)] in counts)

    def connections(self, kind: str, publishers: Collection[tuple[str, int]]) -> int:
        """Return how many connections of ``kind`` there are, without the harness's own."""
        return sum(node.connections(kind, publishers) for node in self.nodes)

    def _is_complete(self) -> bool:
        """Whether each node knows the others, and who has which slots."""
        wanted = ("ok", str(len(self.nodes)))
        infos: list[Any] = [node.client.execute_command("CLUSTER INFO") for node in self.nodes]
        return all((info["cluster_state"], info["cluster_known_nodes"]) == wanted for info in infos)


@contextmanager
def redis_server(
    core: int, logs: Path, others: Mapping[str, object] | None = None
) -> Iterator[RedisServer]:
    """Run a redis-server for as long as the block lasts.

    :param others: More options.
    """
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
        **(others or {}),
    }
    command = [
        "redis-server",
        *(part for name, value in options.items() for part in (f"--{name}", str(value))),
    ]
    with running(command, cores=[core], log=logs / f"redis-server-{port}.log", port=port) as pid:
        server = RedisServer(port, pid)
        try:
            yield server
        finally:
            server.client.close()


@contextmanager
def redis_cluster(core: int, logs: Path) -> Iterator[RedisCluster]:
    """Run three redis-servers that form a cluster for as long as the block lasts, on one core."""
    with ExitStack() as stack, TemporaryDirectory() as folder:
        nodes = [
            stack.enter_context(
                redis_server(
                    core,
                    logs,
                    {
                        "cluster-enabled": "yes",
                        "cluster-port": free_port(),
                        "cluster-config-file": f"nodes-{number}.conf",
                        "dir": folder,
                    },
                )
            )
            for number in range(_NODES)
        ]
        yield RedisCluster(nodes)
