"""Streams without history on a Redis Cluster: a lost node is an outage of its channels alone."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from flask import Flask

from flask_sse import sse
from flask_sse._hub.hub import Hub
from flask_sse._hub.subscriber import Subscriber
from flask_sse._redis import upstream
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.url import Address
from tests.support import servers
from tests.support.client import StreamClient
from tests.support.cluster_load import channels_of_all_nodes
from tests.support.cluster_node import ClusterNode
from tests.support.redis_cluster import RedisCluster, running_cluster
from tests.support.waiting import wait_until

MakeApp = Callable[..., Flask]

MANY: Final = 10_000


class Traffic:
    """A publisher of events on some channels, and the latencies of their streams."""

    def __init__(self, app: Flask, clients: dict[str, StreamClient]) -> None:
        self.latencies: list[float] = []
        self._app = app
        self._clients = clients
        self._seen = dict.fromkeys(clients, 0)

    def run(self, done: Callable[[int], bool]) -> list[float]:
        """Publish until it is done; return the seconds that each event took.

        :param done: Gets the number of events on each channel so far.
        """
        latencies: list[float] = []
        number = 0
        with self._app.app_context():
            while not done(number):
                number += 1
                for name, client in self._clients.items():
                    sse.publish(str(time.monotonic()), channel=name)
                    self._seen[name] += 1
                    event = client.wait_events(self._seen[name])[-1]
                    latencies.append(time.monotonic() - float(event.data))
                    # Nothing is lost, nor does anything come twice.
                    assert len(client.events) == self._seen[name]
                time.sleep(0.005)
        return latencies


def p99(latencies: list[float]) -> str:
    """Return a percentile for people."""
    return f"p99 {sorted(latencies)[len(latencies) * 99 // 100] * 1000:.1f} ms"


def test_a_lost_node_of_a_cluster_and_the_others(
    redis_cluster: RedisCluster, make_app: MakeApp, tmp_path: Path, channel: str
) -> None:
    """Other channels don't notice, and the streams of its own stay open, and go on."""
    settings = {"REDIS_URL": redis_cluster.url, "SSE_KEEPALIVE": 1}
    app = make_app(**settings)
    names = channels_of_all_nodes(channel)
    lost = redis_cluster.node_of(names[0].encode())
    with servers.gunicorn(tmp_path, settings=settings) as site, ExitStack() as stack:
        clients = {
            name: stack.enter_context(StreamClient(site.port, name).open()) for name in names
        }
        waiting = {
            name: client
            for name, client in clients.items()
            if redis_cluster.node_of(name.encode()) is lost
        }
        others = {name: client for name, client in clients.items() if name not in waiting}
        traffic = Traffic(app, others)
        before = traffic.run(lambda number: number == 100)
        redis_cluster.kill(lost)
        thread = threading.Thread(target=redis_cluster.wait_ok)
        thread.start()
        during = traffic.run(lambda _: not thread.is_alive())
        thread.join()
        for name, client in waiting.items():
            redis_cluster.wait_subscribers(1, name.encode())
            redis_cluster.publish(name.encode(), b'{"data": "on"}')
            assert [event.data for event in client.wait_events(1)] == ["on"]
        assert not any(client.ended for client in clients.values())
    print(f"before: {p99(before)}, while a node is lost: {p99(during)} of {len(during)}")


class Listeners:
    """A hub in this process, and many channels with a listener each."""

    def __init__(self, cluster: RedisCluster, names: list[bytes]) -> None:
        nodes = ClusterNodes([Address(*node.address) for node in cluster.nodes], {})
        self.hub = Hub(upstream.of_cluster(nodes).subscribe, Flask("tests").json, linger=0.1)
        self._cluster = cluster
        self._subscribers = {name: Subscriber(1 << 16) for name in names}

    def join(self) -> None:
        """Subscribe to all channels, and wait until all are confirmed."""
        for name, subscriber in self._subscribers.items():
            self.hub.join(name, subscriber)
        self.wait_subscribed()

    def add(self, name: bytes) -> None:
        """Subscribe to another channel."""
        self._subscribers[name] = Subscriber(1 << 16)
        self.hub.join(name, self._subscribers[name])

    def leave(self) -> None:
        """End all subscriptions, and wait until the hub has ended."""
        for subscriber in self._subscribers.values():
            self.hub.leave(subscriber)
        wait_until(lambda: not _threads(), "the hub has ended")

    def are_subscribed(self) -> bool:
        """Whether each channel is subscribed at a primary."""
        return sum(map(_channels, self._cluster.primaries())) == len(self._subscribers)

    def wait_subscribed(self) -> None:
        """Wait for that."""
        wait_until(self.are_subscribed, "all channels are subscribed")


def _channels(node: ClusterNode) -> int:
    answer: Any = node.admin.execute_command("PUBSUB", "SHARDCHANNELS")
    return len(answer)


def _threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("flask-sse")]


@pytest.fixture
def names() -> list[bytes]:
    """Return the names of many channels."""
    return [b"user.%d" % number for number in range(MANY)]


def test_many_channels_of_a_cluster(redis_cluster: RedisCluster, names: list[bytes]) -> None:
    """All of them are subscribed again when the primary of a third of them is replaced."""
    listeners = Listeners(redis_cluster, names)
    begin = time.monotonic()
    listeners.join()
    print(f"{MANY} channels are subscribed after {time.monotonic() - begin:.2f} s")
    primary = redis_cluster.primaries()[1]
    [replica] = redis_cluster.replicas(primary)
    redis_cluster.kill(primary)
    wait_until(lambda: replica.own_row().is_primary, "it is replaced")
    begin = time.monotonic()
    listeners.wait_subscribed()
    print(f"and again {time.monotonic() - begin:.2f} s after a node is replaced")
    listeners.leave()


@pytest.mark.long
def test_a_cluster_of_which_no_node_answers(
    redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The hub waits for it, and ends when nobody listens any more."""
    names = [name.encode() for name in channels_of_all_nodes("away")]
    listeners = Listeners(redis_cluster, names)
    listeners.join()
    for node in redis_cluster.nodes:
        redis_cluster.kill(node)
    wait_until(lambda: "Redis is unavailable" in caplog.text, "the outage is noticed")
    redis_cluster.restart(*redis_cluster.nodes)
    listeners.wait_subscribed()
    for node in redis_cluster.nodes:
        redis_cluster.kill(node)
    listeners.leave()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_many_failovers_of_a_cluster(redis_cluster: RedisCluster) -> None:
    """They leave neither connections nor threads behind."""
    names = [name.encode() for name in channels_of_all_nodes("failing", 50)]
    listeners = Listeners(redis_cluster, names)
    listeners.join()
    process = psutil.Process()

    def connections() -> int:
        ports = {node.port for node in redis_cluster.nodes}
        found = process.net_connections("tcp")
        return sum(bool(one.raddr) and one.raddr.port in ports for one in found)

    redis_cluster.failover(redis_cluster.primaries()[0])
    listeners.wait_subscribed()
    before = connections()
    for number in range(50):
        redis_cluster.failover(redis_cluster.primaries()[number % 3])
        listeners.wait_subscribed()
    wait_until(lambda: connections() <= before, "no connection is left over")
    wait_until(lambda: _threads() == ["flask-sse-hub"], "no thread is left over")
    listeners.leave()


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"cluster-require-full-coverage": "no"}, id="covered-in-part"),
        pytest.param({"cluster-require-full-coverage": "yes"}, id="all-or-nothing"),
        pytest.param(
            {
                "cluster-require-full-coverage": "yes",
                "cluster-allow-pubsubshard-when-down": "no",
            },
            id="without-events",
        ),
    ],
)
def test_slots_of_a_cluster_that_nobody_has(options: dict[str, str], tmp_path: Path) -> None:
    """The cluster is not asked too often, and all channels go on when the lost node is back."""
    cluster = RedisCluster(tmp_path, options=options)
    names = [name.encode() for name in channels_of_all_nodes("uncovered", 10)]
    late = [name.encode() for name in channels_of_all_nodes("late", 10)]
    with running_cluster(cluster, primaries=3, replicas=0):
        listeners = Listeners(cluster, names)
        listeners.join()
        lost, *others = cluster.primaries()
        cluster.kill(lost)
        state = "ok" if options["cluster-require-full-coverage"] == "no" else "fail"
        wait_until(lambda: all(_misses(node, lost, state) for node in others), "the loss is known")
        for node in others:
            node.admin.config_resetstat()
        for name in late:
            listeners.add(name)
        begin = time.monotonic()
        wait_until(lambda: sum(map(_looks, others)) > 40, "the hub looks for another node")
        print(f"40 looks in {time.monotonic() - begin:.1f} s")
        cluster.restart(lost)
        listeners.wait_subscribed()
        for name in (*names, *late):
            assert cluster.publish(name, b'{"data": "on"}') == 1
        listeners.leave()


def _misses(node: ClusterNode, lost: ClusterNode, state: str) -> bool:
    rows = [row for row in node.rows() if row.id == lost.id]
    return "fail" in rows[0].flags and node.state() == state


def _looks(node: ClusterNode) -> int:
    stats: Any = node.admin.info("commandstats")
    return int(stats.get("cmdstat_cluster|slots", {}).get("calls", 0))
