"""History on a Redis Cluster under load, while slots move and nodes fail, come and go."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final

import pytest
from flask import Flask
from redis.crc import key_slot

from flask_sse._log.position import OFFSET_AT_TOP, Entry, Stored
from flask_sse._redis.cluster.log_reader import ClusterLogReader
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.log_reader import Answer, Question
from flask_sse._redis.url import Address
from flask_sse._system.poller import Waker
from tests.support import servers
from tests.support.cluster_load import SETTINGS, Load
from tests.support.cluster_node import ClusterNode
from tests.support.redis_cluster import RedisCluster, running_cluster
from tests.support.redis_programs import program
from tests.support.waiting import wait_until

MakeApp = Callable[..., Flask]
Begin = Callable[..., AbstractContextManager[Load]]

MOVES: Final = 10
FAILOVERS: Final = 5
"""How often the long test makes each kind of failover."""


@pytest.fixture
def begin(make_app: MakeApp, tmp_path: Path, channel: str) -> Begin:
    """Return a function that puts a load on a cluster, and checks at the end what has come."""

    @contextmanager
    def begin(cluster: RedisCluster, **options: int) -> Iterator[Load]:
        settings = {"REDIS_URL": cluster.url, **SETTINGS}
        app = make_app(**settings)
        with servers.gunicorn(tmp_path, settings=settings) as site:
            with Load(app, cluster, [site.port], channel, **options) as load:
                yield load
                outcome = load.finish()
            log = site.log()
        print(outcome)
        assert not outcome.faults
        assert "Traceback" not in log

    return begin


def other_primary(cluster: RedisCluster, node: ClusterNode) -> ClusterNode:
    """Return another primary."""
    return random.choice([other for other in cluster.primaries() if other is not node])


def channels_of(load: Load, cluster: RedisCluster, node: ClusterNode) -> list[str]:
    """Return the channels that a node has."""
    return [name for name in load.channels if cluster.node_of(name.encode()) is node]


def move(load: Load, cluster: RedisCluster, number: int) -> None:
    """Move the slot of a channel, and publish while the slot is in between."""
    name = load.channels[number % len(load.channels)]
    slot = key_slot(name.encode())
    publisher = load.publishers[name]
    to = other_primary(cluster, cluster.owner(slot))
    cluster.move_slot(slot, to, while_migrating=lambda: publisher.wait(3))
    load.flows()


def fail_over(load: Load, cluster: RedisCluster, number: int) -> None:
    """Let a replica take the place of its primary."""
    primaries = cluster.primaries()
    cluster.failover(primaries[number % len(primaries)])
    load.flows()


def kill(load: Load, cluster: RedisCluster, number: int) -> None:
    """Kill a primary; print after how many seconds it is replaced, and all its channels go on."""
    primary = cluster.node_of(load.channels[number % len(load.channels)].encode())
    names = channels_of(load, cluster, primary)
    slot = key_slot(names[0].encode())
    with load.timing(names) as seconds:
        cluster.kill(primary)
        begin = time.monotonic()
        cluster.wait_replaced(primary, slot)
        replaced = time.monotonic() - begin
    print(f"replaced after {replaced:.2f} s, all channels go on {seconds():.2f} s after the death")
    cluster.restart(primary)
    load.flows()


def test_slots_of_a_cluster_that_move(redis_cluster: RedisCluster, begin: Begin) -> None:
    """Although events are published while a slot is in between, each client gets each once."""
    with begin(redis_cluster) as load:
        for number in range(3):
            move(load, redis_cluster, number)
    assert not load.resets()


def test_planned_failovers_of_a_cluster(redis_cluster: RedisCluster, begin: Begin) -> None:
    """They cost no event, and there is no reset."""
    with begin(redis_cluster) as load:
        for number in range(2):
            fail_over(load, redis_cluster, number)
    assert not load.resets()


def test_a_primary_of_a_cluster_that_is_killed(redis_cluster: RedisCluster, begin: Begin) -> None:
    """Its channels go on at the node that replaces it, and publishing raises no error."""
    with begin(redis_cluster) as load:
        kill(load, redis_cluster, 0)


@pytest.mark.long
def test_a_node_of_a_cluster_that_comes_and_goes(redis_cluster: RedisCluster, begin: Begin) -> None:
    """A new node gets the slots of some channels, is emptied and removed."""
    with begin(redis_cluster) as load:
        node = redis_cluster.add_node()
        for name in load.channels[::3]:
            redis_cluster.move_slot(key_slot(name.encode()), node)
        load.flows()
        redis_cluster.remove_node(node)
        load.flows()
    assert not load.resets()


def test_a_node_of_a_cluster_that_clients_lose(
    divisible_cluster: RedisCluster, begin: Begin
) -> None:
    """Only its channels wait, and what was sent in vain arrives late, but has no effect."""
    with begin(divisible_cluster) as load:
        node = divisible_cluster.primaries()[0]
        names = channels_of(load, divisible_cluster, node)
        divisible_cluster.partition(node, from_nodes=False)
        wait_until(lambda: node.proxies[0].held, "something is held")
        for _ in range(5):
            load.flows({*load.channels} - {*names})
        divisible_cluster.heal(node)
        load.flows()
    assert not load.resets()


@pytest.mark.long
def test_a_node_of_a_cluster_that_everybody_loses(
    divisible_cluster: RedisCluster, begin: Begin
) -> None:
    """Its channels go on at the node that replaces it, although no connection has ended."""
    with begin(divisible_cluster) as load:
        node = divisible_cluster.primaries()[0]
        names = channels_of(load, divisible_cluster, node)
        divisible_cluster.partition(node)
        print(f"the channels of a lost node went on after {load.flows(names):.2f} s")
        divisible_cluster.heal(node, reset=True)
        load.flows()


@pytest.mark.long
def test_a_node_of_a_cluster_that_the_other_nodes_lose(
    divisible_cluster: RedisCluster, begin: Begin
) -> None:
    """Clients still reach the primary that is replaced, and don't keep to it."""
    with begin(divisible_cluster) as load:
        node = divisible_cluster.primaries()[0]
        names = channels_of(load, divisible_cluster, node)
        slot = key_slot(names[0].encode())
        divisible_cluster.partition(node, from_clients=False)
        divisible_cluster.wait_replaced(node, slot)
        print(f"the channels of a replaced node went on after {load.flows(names):.2f} s")
        divisible_cluster.heal(node)
        load.flows()


def test_logs_of_a_cluster_whose_primary_is_replaced(
    redis_cluster: RedisCluster, channel: str
) -> None:
    """They are read at the new one at the first attempt, even if nobody has noticed before."""
    question = Question("", channel.encode(), OFFSET_AT_TOP, is_fill=True)
    nodes = ClusterNodes([Address(*node.address) for node in redis_cluster.nodes], {})

    def answer() -> Answer[str]:
        reader.ask([question])
        answers: list[Answer[str]] = []

        def has_come() -> bool:
            answers.extend(reader.answers())
            return bool(answers)

        wait_until(has_come, "an answer")
        return answers[0]

    def fail(stored: Stored) -> Entry:
        raise AssertionError("there are no events")

    with closing(Waker()) as waker, closing(ClusterLogReader[str](nodes, fail, 0, waker)) as reader:
        before = answer()
        primary = redis_cluster.node_of(question.channel)
        redis_cluster.failover(primary)
        redis_cluster.kill(primary)
        after = answer()
        assert after.page, after.error
        assert before.page
        assert after.page.top == before.page.top
        wait_until(lambda: not reader.is_working, "the reader has ended")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_moves_and_failovers_of_a_cluster(redis_cluster: RedisCluster, begin: Begin) -> None:
    """Ten of each under 200 events/s cost 100 clients no event."""
    steps = [move] * MOVES + [fail_over] * FAILOVERS + [kill] * FAILOVERS
    random.Random(1).shuffle(steps)
    with begin(redis_cluster, clients=100) as load:
        for number, step in enumerate(steps):
            step(load, redis_cluster, number)


@pytest.mark.long
@pytest.mark.parametrize(
    "check",
    [
        test_slots_of_a_cluster_that_move,
        test_planned_failovers_of_a_cluster,
        test_a_primary_of_a_cluster_that_is_killed,
        test_a_node_of_a_cluster_that_comes_and_goes,
    ],
)
def test_newer_clusters(
    newer_cluster: RedisCluster, begin: Begin, check: Callable[[RedisCluster, Begin], None]
) -> None:
    """Newer servers do the same."""
    check(newer_cluster, begin)


@pytest.mark.long
def test_slots_of_a_cluster_that_move_at_once(tmp_path: Path, begin: Begin) -> None:
    """Valkey moves the slots of all channels of a node at once, and back, without a lost event."""
    cluster = RedisCluster(tmp_path / "cluster", program=program("valkey-9"))
    (tmp_path / "cluster").mkdir()
    with running_cluster(cluster), begin(cluster) as load:
        for _ in range(2):
            source = cluster.node_of(load.channels[0].encode())
            to = other_primary(cluster, source)
            for slots in source.own_row().slots:
                cluster.move_slots_atomically(slots, to)
                load.flows()
    assert not load.resets()
