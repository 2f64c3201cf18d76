"""The nodes of a Redis Cluster, for the checks: a client for each, asked at the same time.

Waiting for the nodes happens in threads; only the command's thread calls this.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar, cast

import redis

from flask_sse._doctor.cluster_facts import by_node
from flask_sse._doctor.finding import Finding, attempt
from flask_sse._doctor.redis_node import ServerCommands, new_client
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.topology import SlotMap
from flask_sse._redis.slots import SLOTS, slot
from flask_sse._redis.url import Address

_AT_ONCE: Final = 16
_Result = TypeVar("_Result")


class Primaries:
    """The primaries of a cluster.

    :param nodes: Where the cluster is.
    :param patience: Seconds to wait for each answer.
    """

    def __init__(self, nodes: ClusterNodes, patience: float) -> None:
        self.nodes = nodes
        self.patience = patience
        self.slots = SlotMap([None] * SLOTS)
        """The slots of all primaries."""
        self.present: list[Address] = []
        """The primaries that answer."""
        self._clients: dict[Address, redis.StrictRedis] = {}

    def owner(self, channel: bytes) -> Address | None:
        """Return the primary of a channel."""
        return self.slots.owner(slot(channel))

    def client(self, address: Address) -> redis.StrictRedis:
        """Return the client for a node."""
        client = self._clients.get(address)
        if client is None:
            client = new_client(self.nodes.client(address), self.patience)
            self._clients[address] = client
        return client

    def at(self, address: Address) -> ServerCommands:
        """Return the same client, with types."""
        return cast("ServerCommands", self.client(address))

    def ask(
        self, addresses: Sequence[Address], question: Callable[[ServerCommands, Address], _Result]
    ) -> Iterator[tuple[Address, _Result | Exception]]:
        """Yield the answer of each node, or the reason why there is none."""

        def run(address: Address) -> _Result | Exception:
            try:
                return question(clients[address], address)
            except Exception as error:  # noqa: BLE001 - a finding shows it
                return error

        clients = {address: self.at(address) for address in addresses}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from zip(addresses, pool.map(run, addresses), strict=True)

    def on_each(
        self,
        check: str,
        examine: Callable[[ServerCommands, Address], Finding | Iterable[Finding]],
    ) -> Iterator[Finding]:
        """Make a check on each primary that answers, and yield equal findings once."""

        def run(client: ServerCommands, address: Address) -> list[Finding]:
            return [*attempt(check, partial(examine, client, address))]

        found: list[tuple[Address, Finding]] = []
        for address, findings in self.ask(self.present, run):
            if isinstance(findings, list):
                found += [(address, finding) for finding in findings]
        yield from by_node(found, len(self.slots.primaries))

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            # Closing the client would leave its pool open, which was given to it.
            client.connection_pool.disconnect()
