"""A real Redis Cluster, whose nodes a test can move slots between, kill and cut off."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis
import trustme
from redis.crc import key_slot

from tests.support import resharding
from tests.support.cluster_node import ClusterNode
from tests.support.cluster_state import SLOTS, have_met, owned_slots, problem
from tests.support.swallowing_proxy import SwallowingProxy
from tests.support.waiting import wait_until

_ELECTION: Final = 6.0
"""Seconds after which a failover that has not succeeded is given up by the servers."""
_NODE_TIMEOUT: Final = 2.0
"""Seconds of silence after which nodes take another one for lost."""


class RedisCluster:
    """Several redis-server processes that form a cluster, and store nothing on disk.

    Each method that changes it waits until all nodes know about the change. All ports are those
    of 127.0.0.1.

    :param folder: Where the nodes have their folders.
    :param program: The server's path, unless it is the one that was chosen for the tests.
    :param proxied: Whether there are proxies in front of the nodes, for :meth:`partition`.
    :param authority: If given, the nodes only speak TLS, with certificates of this authority.
    :param options: Other options, such as ``cluster-require-full-coverage``. A password belongs
        into ``requirepass`` and ``masterauth``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: str | None = None,
        proxied: bool = False,
        authority: trustme.CA | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.nodes: list[ClusterNode] = []
        """All nodes, also those that have been killed."""
        self._folder = folder
        self._program = program
        self._proxied = proxied
        self._authority = authority
        self._numbers = itertools.count(1)
        self._shape = (0, 0)
        self._replaced: dict[ClusterNode, float] = {}
        """When each primary was last replaced by a vote, on the monotonic clock."""
        self._options = {
            "cluster-node-timeout": f"{_NODE_TIMEOUT * 1000:.0f}",
            "cluster-require-full-coverage": "no",
            # Otherwise a primary without slots becomes a replica, and replicas change sides.
            "cluster-allow-replica-migration": "no",
            **(options or {}),
        }

    @property
    def url(self) -> str:
        """The URL for ``REDIS_URL``, with two nodes to start with."""
        scheme = "rediss" if self._authority else "redis"
        password = self._options.get("requirepass")
        login = f":{password}@" if password else ""
        return f"{scheme}+cluster://{login}{','.join(self.start_nodes)}"

    @property
    def start_nodes(self) -> list[str]:
        """Two nodes, each as host and port, as clients reach them."""
        return ["{}:{}".format(*node.address) for node in self.nodes[:2]]

    def start(self, primaries: int = 3, replicas: int = 3) -> None:
        """Start all nodes, and wait until the cluster is complete.

        :param replicas: How many of them there are in all.
        """
        self._shape = (primaries, replicas)
        nodes = [self._launch() for _ in range(primaries + replicas)]
        first = nodes[:primaries]
        bounds = [number * SLOTS // primaries for number in range(primaries + 1)]
        for number, (node, (begin, end)) in enumerate(
            zip(first, itertools.pairwise(bounds), strict=True)
        ):
            node.ask("ADDSLOTSRANGE", begin, end - 1)
            node.ask("SET-CONFIG-EPOCH", number + 1)
        for one, other in itertools.combinations(nodes, 2):
            _introduce(one, other)
        self._wait(lambda: have_met(self.nodes), "the nodes know each other")
        for replica, primary in zip(nodes[primaries:], itertools.cycle(first), strict=False):
            replica.ask("REPLICATE", primary.id)
        self.wait_ok()

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()
        self.nodes.clear()

    def problem(self) -> str | None:
        """Return what is wrong with the cluster, apart from nodes that don't run."""
        return problem(self.nodes)

    def wait_ok(self) -> None:
        """Wait until all nodes that run agree, all slots have owners, and replicas are linked."""
        self._wait(lambda: self.problem() is None, "the cluster is whole")

    def primaries(self) -> list[ClusterNode]:
        """Return the nodes that own slots, in the order of their first slots."""
        owners = {min(slots): node for node, slots in owned_slots(self.nodes).items() if slots}
        return [owners[first] for first in sorted(owners)]

    def replicas(self, primary: ClusterNode) -> list[ClusterNode]:
        """Return the nodes that run and are replicas of *primary*."""
        return [
            node
            for node in self.nodes
            if node.is_present and node is not primary and node.own_row().primary == primary.id
        ]

    def owner(self, slot: int) -> ClusterNode:
        """Wait until a slot has an owner that runs, and return it."""
        found: list[ClusterNode] = []

        def has_owner() -> bool:
            found.extend(node for node, slots in owned_slots(self.nodes).items() if slot in slots)
            return bool(found)

        self._wait(has_owner, f"slot {slot} has an owner")
        return found[0]

    def node_of(self, channel: bytes) -> ClusterNode:
        """Wait until the slot of a channel has an owner that runs, and return it."""
        return self.owner(key_slot(channel))

    def admin(self, node: ClusterNode) -> redis.Redis:
        """Return a client for the test, which is connected to one node and no proxy."""
        return node.admin

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish at the right node; return how many connections receive it."""
        answer: Any = self.node_of(channel).admin.execute_command("SPUBLISH", channel, payload)
        return int(answer)

    def subscribers(self, channel: bytes) -> int:
        """Return how many connections are subscribed to a channel, at the right node."""
        admin = self.node_of(channel).admin
        answer: Any = admin.execute_command("PUBSUB", "SHARDNUMSUB", channel)
        return int(answer[1])

    def wait_subscribers(self, number: int, channel: bytes) -> None:
        """Wait until this many connections are subscribed to a channel at the right node."""
        self._wait(
            lambda: self.subscribers(channel) == number,
            f"{number} connections subscribed to {channel!r}",
        )

    def move_slot(
        self, slot: int, to: ClusterNode, *, while_migrating: Callable[[], object] | None = None
    ) -> None:
        """Move a slot key by key, as ``redis-cli --cluster reshard`` does.

        :param while_migrating: Called when the keys have moved, and the slot has not. The owner
            answers ASK to commands for keys that it does not have.
        """
        source = self.owner(slot)
        others = [node for node in self.primaries() if node not in {source, to}]
        resharding.move_slot(slot, source, to, others, while_migrating)
        self.wait_ok()

    def move_slots_atomically(self, slots: range, to: ClusterNode) -> None:
        """Move adjacent slots of one owner at once, which Valkey can from version 9 on."""
        resharding.move_slots_atomically(slots, self.owner(slots.start), to)
        self.wait_ok()

    def kill(self, node: ClusterNode) -> None:
        """Kill a node. Its replica replaces it after about twice the node timeout."""
        node.crash()

    def restart(self, *nodes: ClusterNode) -> None:
        """Start nodes that have been killed, and wait until the cluster is whole again.

        A primary that was not replaced meanwhile comes back empty.
        """
        for node in nodes:
            node.start()
        self.wait_ok()

    def failover(self, primary: ClusterNode) -> ClusterNode:
        """Let a replica of *primary* take its place, without loss; return the replica."""
        [replica, *_] = self.replicas(primary)
        # Without a restart, the votes of its last election would count again. It would call itself
        # a primary, the other nodes would refuse that, and the real primary would delay all writes
        # for seconds.
        replica.crash()
        self.restart(replica)
        # Nodes don't vote about the same primary again within twice their timeout.
        again = self._replaced.get(primary, 0.0) + 2 * _NODE_TIMEOUT
        self._wait(lambda: time.monotonic() > again, f"{primary.port} may be voted about")

        def succeeds() -> bool:
            replica.ask("FAILOVER")
            try:
                wait_until(lambda: replica.own_row().is_primary, "a failover", _ELECTION)
            except AssertionError:
                return False
            return True

        self._wait(succeeds, f"{replica.port} takes the place of {primary.port}")
        self._replaced[primary] = time.monotonic()
        self.wait_ok()
        return replica

    def wait_replaced(self, primary: ClusterNode, slot: int) -> ClusterNode:
        """Wait until a slot of a lost primary has another owner; return that."""
        self._wait(lambda: self.owner(slot) is not primary, f"{primary.port} is replaced")
        return self.owner(slot)

    def add_node(self, replica_of: ClusterNode | None = None) -> ClusterNode:
        """Add a node without slots, or a replica; return it."""
        others = [node for node in self.nodes if node.is_present]
        node = self._launch()
        for other in others:
            _introduce(node, other)
        self._wait(lambda: have_met(self.nodes), "the nodes know each other")
        if replica_of is not None:
            node.ask("REPLICATE", replica_of.id)
        self.wait_ok()
        return node

    def remove_node(self, node: ClusterNode) -> None:
        """Give the slots of a node to the other primaries, let them forget it, and end it."""
        others = [other for other in self.primaries() if other is not node]
        parts = node.own_row().slots
        for slots, to in zip(parts, itertools.cycle(others), strict=False):
            rest = [other for other in others if other is not to]
            resharding.move_slots(slots, node, to, rest)
        for replica, primary in zip(self.replicas(node), itertools.cycle(others), strict=False):
            replica.ask("REPLICATE", primary.id)
        self.wait_ok()
        self.nodes.remove(node)
        for other in self.nodes:
            other.ask("FORGET", node.id)
        node.close()
        self.wait_ok()

    def partition(
        self, node: ClusterNode, *, from_nodes: bool = True, from_clients: bool = True
    ) -> None:
        """Swallow what a node and all others send to each other; no connection ends.

        :param from_nodes: Whether the other nodes too lose it, and replace it. If not, it is
            only cut off from clients.
        :param from_clients: Whether clients lose it. If not, they can reach a primary that does
            not know that it is replaced.
        """
        assert self._proxied, "RedisCluster(proxied=True) can be divided"
        clients, bus = node.proxies
        if from_clients:
            clients.swallow()
        if from_nodes:
            bus.swallow()
            for proxy in self._proxies_of_others(node):
                proxy.swallow(node.source)

    def heal(self, node: ClusterNode, *, reset: bool = False) -> None:
        """End a partition, and wait until the cluster is whole.

        :param reset: Reset the connections on which anything was sent meanwhile, instead of
            delivering it now.
        """
        for proxy in node.proxies:
            proxy.heal(reset=reset)
        for proxy in self._proxies_of_others(node):
            proxy.heal(node.source, reset=reset)
        self.wait_ok()

    @contextmanager
    def announcing(self, node: ClusterNode, port: int) -> Iterator[None]:
        """Let a node tell clients a wrong port, until the block ends."""
        try:
            self._announce(node, port)
            yield
        finally:
            self._announce(node, 0)

    def _announce(self, node: ClusterNode, port: int) -> None:
        node.admin.config_set("cluster-announce-port", port)
        known = port or node.address[1]
        self._wait(
            lambda: all(
                row.port == known
                for other in self.nodes
                for row in other.rows()
                if row.id == node.id
            ),
            f"all nodes know the port {known}",
        )

    def repair(self) -> None:
        """Make the cluster as it was at the start, without keys; slots may have other owners."""
        try:
            self._mend()
            whole = self._shape == (
                len(self.primaries()),
                sum(len(self.replicas(primary)) == 1 for primary in self.primaries()),
            )
        except (AssertionError, redis.RedisError):
            whole = False
        if not whole:
            self.stop()
            self.start(*self._shape)
        for node in self.primaries():
            node.admin.flushall()

    def _mend(self) -> None:
        for node in self.nodes:
            if node.is_frozen:
                node.thaw()
            for proxy in node.proxies:
                proxy.heal()
            for proxy in self._proxies_of_others(node):
                proxy.heal(node.source)
        for node in self.nodes:
            if not node.is_running:
                node.start()
        self.wait_ok()

    def _launch(self) -> ClusterNode:
        number = next(self._numbers)
        node = ClusterNode(
            self._folder / f"node-{number}",
            self._program,
            f"127.0.0.{number + 1}",
            proxied=self._proxied,
            authority=self._authority,
            options=self._options,
        )
        self.nodes.append(node)
        node.start()
        return node

    def _proxies_of_others(self, node: ClusterNode) -> list[SwallowingProxy]:
        return [proxy for other in self.nodes if other is not node for proxy in other.proxies]

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        try:
            wait_until(condition, what)
        except AssertionError as error:
            error.add_note(f"The state of the cluster: {problem(self.nodes)}")
            raise


@contextmanager
def running_cluster(
    cluster: RedisCluster, primaries: int = 3, replicas: int = 3
) -> Iterator[RedisCluster]:
    """Start a cluster, and stop it when the block ends."""
    try:
        cluster.start(primaries, replicas)
        yield cluster
    finally:
        cluster.stop()


def _introduce(one: ClusterNode, other: ClusterNode) -> None:
    host, port = other.address
    one.ask("MEET", host, port, other.bus_address[1])
