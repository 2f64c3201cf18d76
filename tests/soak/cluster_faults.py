"""What is done to a Redis Cluster, in random order, and what its nodes have written."""

import contextlib
import os
import random
from pathlib import Path
from typing import Final

from redis.crc import key_slot

from tests.soak.events import KEPT
from tests.soak.faults import OPTIONS, Fault, Saboteur
from tests.support.cluster_node import ClusterNode
from tests.support.redis_cluster import RedisCluster

CLUSTER_OPTIONS: Final = {
    **OPTIONS,
    # What a replica gets from its primary is written as commands as well.
    "aof-use-rdb-preamble": "no",
}


class WrittenFiles:
    """All files that the nodes of a cluster have written their events to.

    A node that becomes a replica deletes its own. So each file gets a second name here.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self._source = source
        self.folder = folder
        folder.mkdir()

    def keep(self) -> None:
        """Keep the files that are there now, and what is appended to them later."""
        for file in self._source.rglob("*.aof"):
            # Meanwhile the node may delete it.
            with contextlib.suppress(FileNotFoundError):
                kept = self.folder / str(file.stat().st_ino)
                if not kept.exists():
                    os.link(file, kept)


class ClusterSaboteur(Saboteur):
    """Makes the faults of a cluster, which has recovered before the next one."""

    def __init__(
        self, rng: random.Random, pause: float, cluster: RedisCluster, files: WrittenFiles
    ) -> None:
        super().__init__(rng, pause)
        self._cluster = cluster
        self._files = files

    def step(self) -> None:
        """Make a fault, but keep all files before."""
        self._files.keep()
        super().step()
        self._files.keep()

    def faults(self) -> dict[str, tuple[int, Fault]]:
        """Return what can be done to a cluster."""
        return {
            "a slot moves": (4, self._move),
            "CLUSTER FAILOVER": (2, self._fail_over),
            "kill -9 of a primary, replaced": (2, self._kill),
            "kill -9 of a primary, restarted": (2, self._restart),
            "kill -9 of a replica": (1, self._kill_replica),
            "a node comes and goes": (1, self._add_and_remove),
            "SIGSTOP of a primary": (2, self._freeze),
            "CLIENT KILL TYPE pubsub": (2, lambda: self._kill_connections("pubsub")),
            "CLIENT KILL TYPE normal": (2, lambda: self._kill_connections("normal")),
        }

    def _slot(self) -> int:
        """Return the slot of one of the channels."""
        return key_slot(self.rng.choice([*KEPT]).encode())

    def _owner(self) -> ClusterNode:
        """Return a primary that has a channel."""
        return self._cluster.owner(self._slot())

    def _move(self) -> None:
        slot = self._slot()
        source = self._cluster.owner(slot)
        others = [node for node in self._cluster.primaries() if node is not source]
        self._cluster.move_slot(
            slot, self.rng.choice(others), while_migrating=lambda: self.hold(0, 0.5)
        )

    def _fail_over(self) -> None:
        self._cluster.failover(self._owner())

    def _kill(self) -> None:
        slot = self._slot()
        primary = self._cluster.owner(slot)
        self._cluster.kill(primary)
        self._cluster.wait_replaced(primary, slot)
        self._cluster.restart(primary)

    def _restart(self) -> None:
        primary = self._owner()
        self._cluster.kill(primary)
        self._cluster.restart(primary)

    def _kill_replica(self) -> None:
        [replica, *_] = self._cluster.replicas(self._owner())
        self._cluster.kill(replica)
        self.hold(0, 3)
        self._cluster.restart(replica)

    def _add_and_remove(self) -> None:
        node = self._cluster.add_node()
        self._cluster.move_slot(self._slot(), node)
        self.hold(0, 1)
        self._files.keep()
        self._cluster.remove_node(node)

    def _freeze(self) -> None:
        primary = self._owner()
        primary.freeze()
        self.hold(0.5, 7)
        self._files.keep()
        primary.thaw()
        self._cluster.wait_ok()

    def _kill_connections(self, kind: str) -> None:
        for _ in range(self.rng.randint(1, 20)):
            for node in self._cluster.primaries():
                node.admin.client_kill_filter(_type=kind, skipme=True)
            self.hold(0.05, 0.05)
