"""One node of a Redis Cluster: a server, its ports, and what it says about the cluster."""

import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import trustme

from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.swallowing_proxy import SwallowingProxy

_BUS: Final = 10_000
"""The distance from a node's port to that of the cluster's bus."""
_PORTS: Final = range(10_100, 22_700)
"""No outgoing connection takes one of these, nor one of the buses' ports."""


class Row(NamedTuple):
    """What a node says about one node: a line of ``CLUSTER NODES``."""

    id: str
    port: int
    """The port that clients use."""
    flags: frozenset[str]
    primary: str
    """The id of its primary; a dash if it is one itself."""
    epoch: int
    is_linked: bool
    """Whether the node that says this is connected to it."""
    slots: tuple[range, ...]
    moving: tuple[str, ...]
    """The slots that it imports or exports, in the server's own notation."""

    @property
    def is_primary(self) -> bool:
        """Whether it is a primary. One without slots is a primary too."""
        return "master" in self.flags

    def has(self, slot: int) -> bool:
        """Whether it owns the slot."""
        return any(slot in part for part in self.slots)


class ClusterNode(RedisServer):
    """A redis-server in cluster mode.

    Each node has a loopback address of its own, from which it connects to the others. All accept
    connections at 127.0.0.1.

    :param folder: A folder of its own, which is made.
    :param program: The server's path, unless it is the one that was chosen for the tests.
    :param source: The address from which it connects to others.
    :param proxied: Whether clients and other nodes reach it through proxies, which can swallow
        what they send.
    :param authority: If given, the node only speaks TLS.
    :param options: Other options.
    """

    def __init__(
        self,
        folder: Path,
        program: str | None,
        source: str,
        *,
        proxied: bool = False,
        authority: trustme.CA | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.source = source
        self.proxies: list[SwallowingProxy] = []
        self.is_frozen = False
        self.is_running = False
        self._id: str | None = None
        self._open = ExitStack()
        lock = self._open.enter_context(lock_port())
        port: int = lock.getsockname()[1]
        super().__init__(folder, port=port, program=program)
        folder.mkdir()
        tls = "tls-" if authority else ""
        if authority:
            self.use_tls(authority)
            self.options["tls-cluster"] = "yes"
        self.address = (LOOPBACK, port)
        self.bus_address = (LOOPBACK, port + _BUS)
        if proxied:
            self.proxies = [SwallowingProxy(port), SwallowingProxy(port + _BUS)]
            for proxy in self.proxies:
                self._open.enter_context(proxy)
            self.address, self.bus_address = ((LOOPBACK, proxy.port) for proxy in self.proxies)
            self.options[f"cluster-announce-{tls}port"] = str(self.address[1])
            self.options["cluster-announce-bus-port"] = str(self.bus_address[1])
        self.options.update(
            {
                "cluster-enabled": "yes",
                "cluster-announce-ip": LOOPBACK,
                "bind-source-addr": source,
                # Protected mode takes other loopback addresses than 127.0.0.1 for foreign ones.
                "protected-mode": "no",
                # A killed node must not come back with what another one has written.
                "rdb-del-sync-files": "yes",
                "repl-diskless-sync-delay": "0",
            }
        )
        self.options.update(options or {})

    @property
    def id(self) -> str:
        """The name by which the cluster knows it."""
        if self._id is None:
            self._id = self.ask("MYID").decode()
        return self._id

    @property
    def is_present(self) -> bool:
        """Whether it runs, and the others can reach it."""
        return (
            self.is_running
            and not self.is_frozen
            and not any(proxy.swallows_all for proxy in self.proxies[1:])
        )

    def ask(self, *command: str | int) -> bytes:
        """Return the answer to a command that begins with ``CLUSTER``."""
        answer: Any = self.admin.execute_command("CLUSTER", *command)
        return bytes(answer)

    def rows(self) -> list[Row]:
        """Return what it says about all nodes."""
        return [_row(line) for line in self.ask("NODES").decode().splitlines()]

    def own_row(self) -> Row:
        """Return what it says about itself."""
        return next(row for row in self.rows() if "myself" in row.flags)

    def state(self) -> str:
        """Return whether it considers the cluster usable: ``ok`` or ``fail``."""
        lines = self.ask("INFO").decode().splitlines()
        return dict(line.split(":", 1) for line in lines)["cluster_state"]

    def has_link(self) -> bool:
        """Whether it receives what its primary writes."""
        replication = self.admin.info("replication")
        return bool(replication.get("master_link_status") == "up")

    def start(self) -> None:
        """Start it and wait until it answers."""
        super().start()
        self.is_running = True

    def stop(self) -> None:
        """Stop it, if it runs."""
        self.is_frozen = self.is_running = False
        super().stop()

    def freeze(self) -> None:
        """Pause it, with all its connections open."""
        super().freeze()
        self.is_frozen = True

    def thaw(self) -> None:
        """Resume it."""
        super().thaw()
        self.is_frozen = False

    def close(self) -> None:
        """End it, and release its ports."""
        if self.is_running:
            self.crash()
        self._open.close()


def lock_port() -> socket.socket:
    """Return a socket that keeps other tests from using the same port, as long as it is open.

    It has the number of a free port, whose bus is free too, but is one of UDP. A killed node
    finds its port free when it comes back, in each of several processes that run tests.
    """
    # Not the generator that tests seed: processes would all try the same ports.
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        lock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            lock.bind((LOOPBACK, port))
            for number in (port, port + _BUS):
                socket.create_server((LOOPBACK, number)).close()
        except OSError:
            lock.close()
        else:
            return lock
    raise AssertionError("no port is free")


def _row(line: str) -> Row:
    node, address, flags, primary, _, _, epoch, link, *slots = line.split(" ")
    return Row(
        node,
        int(address.partition("@")[0].rpartition(":")[2]),
        frozenset(flags.split(",")),
        primary,
        int(epoch),
        link == "connected",
        tuple(_ranges(slots)),
        tuple(slot for slot in slots if slot.startswith("[")),
    )


def _ranges(slots: list[str]) -> Iterator[range]:
    for slot in slots:
        if not slot.startswith("["):
            first, _, last = slot.partition("-")
            yield range(int(first), int(last or first) + 1)
