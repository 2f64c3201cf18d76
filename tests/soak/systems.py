"""The Redis of a soak, or its cluster: where events go, what fails, and what was written."""

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import redis

from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.publisher import ClusterPublisher
from flask_sse._redis.url import Address
from tests.soak.cluster_faults import CLUSTER_OPTIONS, ClusterSaboteur, WrittenFiles
from tests.soak.faults import OPTIONS, RedisSaboteur, Saboteur
from tests.soak.truth import Truth
from tests.support.processes import LOOPBACK
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer

Publish = Callable[[str, str], object]
"""Publishes a payload to a channel, without history."""


class System(Protocol):
    """What the events of a soak go through."""

    url: str
    saboteur: Saboteur
    publish: Publish

    def read(self, truth: Truth) -> None:
        """Add what has been written at last."""


class OneRedis:
    """A Redis that appends all it does to a file."""

    def __init__(
        self, rng: random.Random, pause: float, folder: Path, truth: Truth, stack: ExitStack
    ) -> None:
        self._data = folder / "data"
        self._data.mkdir()
        server = RedisServer(folder)
        server.options.update(OPTIONS, dir=str(self._data))
        stack.callback(server.stop)
        saboteur = RedisSaboteur(rng, pause, server, folder, truth)
        saboteur.start()
        self.saboteur: Saboteur = saboteur
        self.url = server.url
        client = stack.enter_context(redis.Redis(LOOPBACK, server.port, socket_timeout=5))
        self.publish: Publish = client.publish

    def read(self, truth: Truth) -> None:
        """Add what has been written at last."""
        truth.read(self._data)


class OneCluster:
    """Three primaries and three replicas, each of which appends all it does to a file."""

    def __init__(
        self, rng: random.Random, pause: float, folder: Path, truth: Truth, stack: ExitStack
    ) -> None:
        nodes = folder / "nodes"
        nodes.mkdir()
        self._files = WrittenFiles(nodes, folder / "kept")
        cluster = RedisCluster(nodes, options=CLUSTER_OPTIONS)
        stack.callback(cluster.stop)
        cluster.start()
        self.url = cluster.url
        self.saboteur: Saboteur = ClusterSaboteur(rng, pause, cluster, self._files)
        start = [Address(*node.address) for node in cluster.nodes]
        publisher = ClusterPublisher(ClusterNodes(start, {}))
        stack.callback(publisher.disconnect)
        self.publish: Publish = lambda channel, payload: publisher.publish(
            channel.encode(), payload.encode()
        )

    def read(self, truth: Truth) -> None:
        """Add what has been written at last."""
        self._files.keep()
        truth.read(self._files.folder)
