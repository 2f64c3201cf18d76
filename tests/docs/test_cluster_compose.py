"""The compose file of the documentation, whose commands are run without containers."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import yaml

from tests.support.cluster_node import lock_port
from tests.support.processes import LOOPBACK, Process
from tests.support.waiting import PATIENCE

from .blocks import EXAMPLES
from .running import runs

_COMPOSE: Final = EXAMPLES / "deployment" / "compose.yaml"
_NODES: Final = ("redis-1", "redis-2", "redis-3")
_PORT: Final = 6379


@pytest.fixture
def compose() -> dict[str, Any]:
    """Return the file's content."""
    content: dict[str, Any] = yaml.safe_load(_COMPOSE.read_text(encoding="utf-8"))
    return content


@pytest.fixture
def ports(compose: dict[str, Any], tmp_path: Path) -> Iterator[dict[str, int]]:
    """Start the nodes with the file's command lines; return the port of each address."""
    ports: dict[str, int] = {}
    locks = [lock_port() for _ in _NODES]
    processes: list[Process] = []
    try:
        for name, lock in zip(_NODES, locks, strict=True):
            folder, port = tmp_path / name, lock.getsockname()[1]
            folder.mkdir()
            own = ["--port", str(port), "--bind", LOOPBACK]
            command = [*shlex.split(compose["services"][name]["command"]), *own]
            processes.append(Process(command, port, folder / "log", {}, folder))
            processes[-1].wait_listening()
            ports[_address(compose, name)] = port
        yield ports
    finally:
        for process in processes:
            process.stop()
        for lock in locks:
            lock.close()


@runs("deployment/compose.yaml")
def test_the_commands(compose: dict[str, Any], ports: dict[str, int]) -> None:
    """They start three servers, and make them a cluster once."""
    shell, option, text = compose["services"]["redis-cluster"]["command"]
    for address, port in ports.items():
        text = text.replace(f"{address}:{_PORT}", f"{LOOPBACK}:{port}")
        text = text.replace(f"-h {address} -p {_PORT}", f"-h {LOOPBACK} -p {port}")
    assert "10." not in text
    outputs = [
        subprocess.run(
            [shell, option, text], capture_output=True, text=True, check=True, timeout=PATIENCE
        ).stdout
        for _ in range(2)
    ]
    assert "All 16384 slots covered" in outputs[0]
    assert outputs[1].strip() == "cluster_slots_assigned:16384"
    with redis.RedisCluster(host=LOOPBACK, port=min(ports.values())) as client:
        assert {node.port for node in client.get_primaries()} == {*ports.values()}
        for number in range(20):
            assert client.set(f"key-{number}", number)


def test_the_rest(compose: dict[str, Any]) -> None:
    """Each node has an address in the network and a volume; the cluster waits for all nodes."""
    [pool] = compose["networks"]["default"]["ipam"]["config"]
    addresses = {_address(compose, name) for name in _NODES}
    assert {address.rpartition(".")[0] + ".0/24" for address in addresses} == {pool["subnet"]}
    assert len(addresses) == 3
    for name in _NODES:
        assert compose["services"][name]["volumes"] == [f"{name}:/data"]
    assert set(compose["volumes"]) == {*_NODES}
    cluster = compose["services"]["redis-cluster"]
    assert cluster["depends_on"] == {name: {"condition": "service_healthy"} for name in _NODES}
    assert len({service["image"] for service in compose["services"].values()}) == 1


def _address(compose: dict[str, Any], name: str) -> str:
    address: str = compose["services"][name]["networks"]["default"]["ipv4_address"]
    return address
