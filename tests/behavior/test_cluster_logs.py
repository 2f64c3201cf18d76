"""Reading the logs of many channels in a Redis Cluster, some of whose nodes fail or move slots."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager

import pytest
from flask import Flask
from redis.crc import key_slot

from flask_sse._hub.log_queries import History, Logs
from flask_sse._hub.logged_channel import LoggedChannel
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.publisher import ClusterPublisher
from flask_sse._redis.log_commands import NewEntry
from flask_sse._redis.log_reader import Answer
from flask_sse._redis.upstream import of_cluster
from flask_sse._redis.url import parse
from flask_sse._settings import Retention
from flask_sse._system.poller import Waker
from tests.support.redis_cluster import RedisCluster
from tests.support.waiting import wait_until


class Reading:
    """Asks for the newest positions of channels, as a hub does."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self.failed: set[bytes] = set()
        """The channels whose last question has failed."""
        self.tops: dict[bytes, int] = {}
        """The newest offset of each channel that has been answered."""
        self._channels: dict[bytes, LoggedChannel] = {}

    def ask(self, names: Collection[bytes]) -> None:
        """Ask about channels, and forget what has been answered, or is to come, about them."""
        for name in names:
            self.tops.pop(name, None)
            self.failed.discard(name)
            if (earlier := self._channels.get(name)) is not None:
                self.logs.forget(earlier)
            channel = self.logs.new_channel(name, lambda: None)
            assert channel is not None
            self._channels[name] = channel
            channel.compare()
        self.logs.ask(time.monotonic())

    def take(self) -> dict[bytes, int]:
        """Take what has been answered, and ask again what has failed."""
        self.logs.collect()
        for answer in self.logs.answers():
            self._take(answer)
        self.logs.ask(time.monotonic())
        return self.tops

    def wait(self, names: Collection[bytes]) -> None:
        """Wait until channels have been answered."""
        wait_until(lambda: self.take().keys() >= {*names}, f"{len(names)} logs have been read")

    def _take(self, answer: Answer[LoggedChannel]) -> None:
        name = answer.question.channel
        if answer.page is None:
            self.failed.add(name)
            self.logs.note_failure(answer.question, answer.error)
        else:
            self.tops[name] = answer.page.top.offset


@contextmanager
def reading(cluster: RedisCluster, **options: object) -> Iterator[Reading]:
    """Read logs until the block ends."""
    parsed = parse(cluster.url)
    nodes = ClusterNodes(parsed.nodes, {**parsed.options, **options})
    history = History(lambda _: Retention(1000, is_latest=False), of_cluster(nodes).logs, 0)
    with closing(Waker()) as waker, closing(Logs(history, Flask("tests").json, waker)) as logs:
        yield Reading(logs)
        wait_until(lambda: not logs.is_reading, "no thread reads a log")


def publish(cluster: RedisCluster, names: Collection[bytes], number: int = 1) -> None:
    """Publish events with history on each channel."""
    parsed = parse(cluster.url)
    with disconnecting(ClusterPublisher(ClusterNodes(parsed.nodes, parsed.options))) as publisher:
        for name in names:
            for _ in range(number):
                publisher.append(name, NewEntry(b'{"data": "x", "id": "', b'"}', 1000, 60))


@contextmanager
def disconnecting(publisher: ClusterPublisher) -> Iterator[ClusterPublisher]:
    """Close a publisher's connections when the block ends."""
    try:
        yield publisher
    finally:
        publisher.disconnect()


def channels(cluster: RedisCluster, number: int) -> list[list[bytes]]:
    """Return names of channels for each primary, so many for each."""
    found: list[list[bytes]] = []
    names = [b"logged-%d" % one for one in range(20 * number)]
    for node in cluster.primaries():
        [row] = [row for row in node.rows() if "myself" in row.flags]
        found.append([name for name in names if row.has(key_slot(name))][:number])
    assert [len(some) for some in found] == [number] * len(found)
    return found


def test_all_logs_of_a_cluster_are_read(redis_cluster: RedisCluster) -> None:
    """More questions than one exchange has, for all nodes, get the right answers."""
    found = channels(redis_cluster, 100)
    names = [name for some in found for name in some]
    publish(redis_cluster, names[::2])
    with reading(redis_cluster) as reader:
        reader.ask(names)
        reader.wait(names)
        assert reader.tops == {name: int(name in names[::2]) for name in names}
        assert not reader.failed


def test_a_node_of_a_cluster_that_is_silent(divisible_cluster: RedisCluster) -> None:
    """Its logs are read when it answers again, and those of the other nodes at once."""
    first, *others = channels(divisible_cluster, 70)
    names = [name for some in others for name in some]
    publish(divisible_cluster, [*first, *names])
    silent = divisible_cluster.primaries()[0]
    with reading(divisible_cluster, socket_timeout=300, socket_connect_timeout=300) as reader:
        reader.ask([*first, *names])
        reader.wait([*first, *names])
        divisible_cluster.partition(silent, from_nodes=False)
        reader.ask([*first, *names])
        reader.wait(names)
        assert reader.tops.keys().isdisjoint(first)
        # The node has not failed yet, as there is a long time to wait for it.
        reader.ask(names)
        reader.wait(names)
        assert reader.tops.keys().isdisjoint(first)
        divisible_cluster.heal(silent)
        reader.wait(first)
        assert not reader.failed


def test_a_silent_node_of_a_cluster_fails(
    divisible_cluster: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing waits for it forever, and the log says once that there is an error."""
    first, *others = channels(divisible_cluster, 70)
    names = [name for some in others for name in some]
    publish(divisible_cluster, [*first, *names])
    silent = divisible_cluster.primaries()[0]
    with reading(divisible_cluster, socket_timeout=0.5) as reader:
        divisible_cluster.partition(silent, from_nodes=False)
        reader.ask(first)
        wait_until(lambda: not reader.take() and reader.failed == {*first}, "the node has failed")
        reader.ask(names)
        reader.wait(names)
        reader.failed.clear()
        wait_until(lambda: reader.take() and reader.failed, "it has failed again")
        warnings = [record for record in caplog.records if "history" in record.message]
        divisible_cluster.heal(silent)
        reader.wait(first)
    assert len(warnings) == 1


def test_the_slot_of_a_log_moves_in_a_cluster(redis_cluster: RedisCluster) -> None:
    """It is read where it is, while it moves and afterwards, and so are the others."""
    found = channels(redis_cluster, 30)
    names = [name for some in found for name in some]
    publish(redis_cluster, names, 2)
    moving = found[0][0]
    with reading(redis_cluster) as reader:

        def read_all() -> None:
            reader.ask(names)
            reader.wait(names)
            assert set(reader.tops.values()) == {2}

        read_all()
        target = redis_cluster.primaries()[1]
        redis_cluster.move_slot(key_slot(moving), target, while_migrating=read_all)
        read_all()
        assert not reader.failed


def test_the_logs_of_a_primary_that_dies(redis_cluster: RedisCluster) -> None:
    """They are read from its replica, and the others in the meantime."""
    first, *others = channels(redis_cluster, 70)
    names = [name for some in others for name in some]
    publish(redis_cluster, [*first, *names])
    [primary, *_] = redis_cluster.primaries()
    [replica] = redis_cluster.replicas(primary)
    wait_until(_has_all(primary.admin.dbsize, replica.admin.dbsize), "the replica has the logs")
    with reading(redis_cluster) as reader:
        reader.ask([*first, *names])
        reader.wait([*first, *names])
        redis_cluster.kill(primary)
        reader.ask([*first, *names])
        reader.wait(names)
        reader.wait(first)
        assert set(reader.tops.values()) == {1}


def _has_all(expected: Callable[[], object], count: Callable[[], object]) -> Callable[[], bool]:
    return lambda: count() == expected()
