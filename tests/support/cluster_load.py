"""Clients and publishers on channels of all nodes of a cluster, and a check of what has come."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Self

from flask import Flask
from redis.crc import key_slot

from flask_sse import history, sse
from flask_sse._redis import log_commands
from tests.soak.checker import BROKEN, CONNECTED
from tests.soak.crowd import Crowd, Member
from tests.support.cluster_state import SLOTS
from tests.support.following import Publisher
from tests.support.parser import Event
from tests.support.redis_cluster import RedisCluster
from tests.support.waiting import wait_until

SETTINGS: Final[Mapping[str, object]] = {
    "SSE_HISTORY": 100_000,
    "SSE_RETRY": 100,
    "SSE_KEEPALIVE": 1,
}
_PARTS: Final = 3
_SETTLED_WITHIN: Final = 60


def channels_of_all_nodes(prefix: str, each: int = 2) -> list[str]:
    """Return names of channels, equally many in each third of the slots."""
    found: Counter[int] = Counter()
    names: list[str] = []
    number = 0
    while len(names) < _PARTS * each:
        name = f"{prefix}-{number}"
        part = key_slot(name.encode()) * _PARTS // SLOTS
        if found[part] < each:
            found[part] += 1
            names.append(name)
        number += 1
    return names


class Load:
    """Publishers with about 200 events a second, and clients that come back after each loss.

    :param app: Publishes on the cluster.
    :param cluster: The cluster, which says at last what is in the logs.
    :param ports: Where the clients connect.
    :param prefix: How the names of the channels begin.
    """

    def __init__(
        self,
        app: Flask,
        cluster: RedisCluster,
        ports: Sequence[int],
        prefix: str,
        *,
        clients: int = 24,
        rate: int = 200,
    ) -> None:
        self.channels = channels_of_all_nodes(prefix)
        self._app = app
        self._cluster = cluster
        self.members = [
            Member(
                ports[number % len(ports)],
                self.channels[number // len(ports) % len(self.channels)],
                is_small=False,
            )
            for number in range(clients)
        ]
        self._crowd = Crowd(self.members)
        interval = len(self.channels) / rate
        self.publishers = {name: Publisher(app, name, interval) for name in self.channels}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._crowd)
            wait_until(self._crowd.have_opened, "all streams begin")
            for publisher in self.publishers.values():
                stack.enter_context(publisher)
            self._stack = stack.pop_all()
        self.flows()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def newest(self, channel: str) -> int:
        """Return the newest number that any client of a channel has received."""
        return max(_newest(m.record) for m in self.members if m.channel == channel)

    def resets(self) -> int:
        """Return how often clients were told that they may have missed something."""
        return sum(event.type == "sse.reset" for one in self.members for event in one.record)

    def flows(self, channels: Collection[str] = ()) -> float:
        """Wait until an event arrives that is published from now on; return after how long.

        :param channels: On which channels; all by default.
        """
        with self.timing(channels or self.channels) as seconds:
            pass
        return seconds()

    @contextmanager
    def timing(self, channels: Collection[str]) -> Iterator[Callable[[], float]]:
        """Yield a function that waits for events on channels from the beginning of the block on.

        The function returns how many seconds after that the last channel has one.
        """
        begin = time.monotonic()
        # The event that is being published may be an older one.
        numbers = {name: self.publishers[name].number + 1 for name in channels}
        arrived: list[float] = []

        def watch() -> None:
            wait_until(
                lambda: all(self.newest(name) >= number for name, number in numbers.items()),
                "new events arrive",
            )
            arrived.append(time.monotonic() - begin)

        thread = threading.Thread(target=watch)
        thread.start()

        def seconds() -> float:
            thread.join()
            return arrived[0]

        yield seconds
        thread.join()

    def finish(self) -> "Outcome":
        """Stop publishing, wait until each client has everything, and check what has come."""
        numbers = {name: publisher.stop() + 1 for name, publisher in self.publishers.items()}
        ends: dict[str, str] = {}
        with self._app.app_context():
            for name, number in numbers.items():
                sse.publish(number, channel=name)
                ends[name] = history.position(name)
        self._crowd.wake()
        wait_until(lambda: self._crowd.are_at(ends), "all clients are at the end", _SETTLED_WITHIN)
        kept = {name: _numbers_in_log(self._cluster, name) for name in ends}
        raised = sum(len(publisher.failures) for publisher in self.publishers.values())
        outcome = Outcome(sum(numbers.values()), raised)
        for record in self._crowd.records():
            outcome.check(record.events, kept[record.channel])
        assert self._crowd.error is None
        return outcome


class Outcome:
    """What the clients have received, and what is wrong with it."""

    def __init__(self, published: int, raised: int) -> None:
        self.published = published
        self.raised = raised
        """How many calls of `publish` have raised an error."""
        self.delivered = 0
        self.resets = 0
        self.connections = 0
        self.faults: list[str] = []
        """Gaps without a reset, events that have come twice or too late, and anything unknown."""

    def __str__(self) -> str:
        return (
            f"{self.published} published, {self.raised} of them raised; {self.delivered} delivered "
            f"on {self.connections} connections; {self.resets} resets, {len(self.faults)} faults"
        )

    def check(self, events: Sequence[Event], kept: Collection[int]) -> None:
        """Check the record of a client.

        :param kept: The numbers that are in the log at last. A failover may lose others.
        """
        self.faults += self._faults(events, kept)

    def _faults(self, events: Sequence[Event], kept: Collection[int]) -> Iterator[str]:
        last: int | None = None
        must_be_reset = False
        for event in events:
            kind = event.type
            if kind == CONNECTED:
                self.connections += 1
                must_be_reset = False
            elif kind == "sse.open":
                must_be_reset = last is not None and not json.loads(event.data)["recovered"]
            elif kind == "sse.reset":
                self.resets += 1
                last, must_be_reset = None, False
            elif kind == BROKEN or kind != "message":
                yield f"unexpected: {event}"
            else:
                number = int(event.data)
                self.delivered += 1
                if must_be_reset:
                    yield f"{number} comes before the reset"
                if last is not None and number <= last:
                    yield f"{number} after {last}"
                elif last is not None and (missing := {*range(last + 1, number)} & {*kept}):
                    yield f"a silent gap of {len(missing)} between {last} and {number}"
                last = number


def _newest(record: Sequence[Event]) -> int:
    return next((int(one.data) for one in reversed(record) if one.type == "message"), -1)


def _numbers_in_log(cluster: RedisCluster, channel: str) -> set[int]:
    name = channel.encode()
    entries: Any = cluster.node_of(name).admin.xrange(log_commands.key(name))
    return {int(json.loads(fields[b"payload"])["data"]) for _, fields in entries}
