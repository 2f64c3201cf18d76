"""The guarantee of history as a model: no silent gap, with any faults in any order.

Each client's record is checked by ids: every event follows the one before it in the log, or a
reset says that it does not, and the reset must have a cause. At the end, every client has
reached the end of the log.
"""

import contextlib
import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import pytest
import redis
from flask import Flask
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from flask_sse._event.channel_name import Key
from flask_sse._hub import log_queries
from flask_sse._hub.connection import Connection, Terms
from flask_sse._hub.hub import Hub
from flask_sse._hub.log_queries import History
from flask_sse._hub.subscriber import Follower
from flask_sse._log.composite_id import Marks, parse
from flask_sse._log.position import Mark, Position
from flask_sse._redis import log_commands
from flask_sse._redis.log_commands import NewEntry
from flask_sse._redis.log_source import ServerLogs
from flask_sse._redis.pubsub import (
    Arrival,
    Delivered,
    PubSubConnection,
    RedisConnection,
    open_connection,
)
from flask_sse._redis.server_subscription import ServerSubscription
from flask_sse._redis.upstream import Upstream
from flask_sse._settings import Retention
from tests.support import parser
from tests.support.parser import Parser
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until

KEPT: Final = 300
TEXT: Final = "x" * 3000
_SPARE: Final = 3600
"""Seconds for which Redis keeps a log after its events have expired."""

_names = itertools.count()


class Logged(NamedTuple):
    """An event in the model."""

    before: str
    """The position before it."""
    data: str


class Sent(NamedTuple):
    """What a client says about where it is."""

    cursor: Position | None = None
    marks: Marks = ()
    """The same in a stream that may have several channels."""


class Client:
    """A client that keeps a record, served in one of the two ways."""

    def __init__(self, last_id: str) -> None:
        self.last_id = last_id
        self.is_stalled = False
        self.must_be_reset = False
        self.parser = Parser()

    def receive(self) -> None:
        """Note the events that have arrived."""

    def come_back(self, sent: Sent) -> None:
        """Connect again if the hub has ended the stream before it began."""

    def close(self) -> None:
        """Go away."""


class SocketClient(Client):
    """A client whose connection the hub serves."""

    def __init__(self, hub: Hub, channel: Key, last_id: str, sent: Sent) -> None:
        super().__init__(last_id)
        self._hub = hub
        self._channel = channel
        self._has_begun = self._has_ended = False
        self._connect(sent)

    def _connect(self, sent: Sent) -> None:
        server, self._socket = socket.socketpair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        server.setblocking(False)
        self._socket.setblocking(False)
        terms = Terms(b":\n", lambda: b"retry:7\n", 1 << 14, lambda _: None)
        descriptor = server.detach()

        def take() -> Connection:
            return Connection(
                descriptor,
                b"",
                terms,
                chunked=False,
                callbacks=[],
                resume_after=sent.cursor,
                marks=sent.marks,
            )

        self._hub.adopt(self._channel, take)

    def receive(self) -> None:
        """Read the socket."""
        with contextlib.suppress(BlockingIOError):
            while data := self._socket.recv(1 << 16):
                self.parser.feed(data)
                self._has_begun = self._has_begun or bool(self.parser.events)
            self._has_ended = True

    def come_back(self, sent: Sent) -> None:
        """Connect again if Redis did not answer in time."""
        if self._has_ended and not self._has_begun:
            self._has_ended = False
            self.close()
            self._connect(sent)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class ReadClient(Client):
    """A client whose stream the server reads."""

    def __init__(self, hub: Hub, channel: Key, last_id: str, sent: Sent) -> None:
        super().__init__(last_id)
        self._hub = hub
        self._subscriber = Follower(1 << 11, sent.cursor, sent.marks)
        hub.join(channel, self._subscriber)

    def receive(self) -> None:
        """Take the waiting events, as a server does."""
        while self._subscriber.is_open:
            batches = self._subscriber.take(timeout=0)
            if not batches:
                return
            for batch in batches:
                self.parser.feed(batch.frames)

    def close(self) -> None:
        """Leave the hub."""
        self._hub.leave(self._subscriber)


class LossyConnection(PubSubConnection):
    """A subscription that silently loses events, as a proxy may."""

    to_lose = 0

    def read(self, limit: int) -> list[Arrival]:
        """Return what Redis has sent, but for some events."""
        arrivals: list[Arrival] = []
        for arrival in super().read(limit):
            if isinstance(arrival, Delivered) and self.to_lose:
                self.to_lose -= 1
            else:
                arrivals.append(arrival)
        return arrivals


class HistoryMachine(RuleBasedStateMachine):
    """Two processes, a Redis that loses and forgets, and clients that come and go."""

    server: ClassVar[RedisServer]
    tally: ClassVar[Counter[str]]
    clients = Bundle("clients")
    left = Bundle("left")

    def __init__(self) -> None:
        super().__init__()
        self.channel = f"model-{next(_names)}".encode()
        self.retention = Retention(KEPT, is_latest=False)
        self.logged: dict[str, Logged] = {}
        self.positions: list[str] = []
        self.top = ""
        self.key = log_commands.key(self.channel)
        self.snapshot: bytes | None = None
        self.snapshot_top = ""
        self.number = 0
        self.may_be_reset = False
        self.connected: list[Client] = []
        self.subscriptions: list[LossyConnection] = []
        self.is_reachable = threading.Event()
        self.is_reachable.set()
        upstream = self.make_upstream()
        history = History(lambda _: self.retention, upstream.logs, 0)
        self.hubs = [
            Hub(upstream.subscribe, Flask("tests").json, linger=0.1, history=history)
            for _ in range(2)
        ]
        self.tally["examples"] += 1

    # What another machine has in place of one Redis

    @property
    def admin(self) -> redis.Redis:
        """A client for what happens to the log."""
        return self.server.admin

    def make_upstream(self) -> Upstream:
        """Return what the hubs need to know."""
        self.redis = redis.Redis(port=self.server.port)
        return Upstream(
            "",
            partial(ServerSubscription, self._subscribe),
            partial(ServerLogs, self._open),
            0,
        )

    def append(self, event: NewEntry) -> None:
        """Publish an event with history."""
        log_commands.append(self.redis, self.channel, event)

    def find_top(self) -> Position:
        """Ask for the newest position once."""
        return log_commands.newest_position(self.redis, self.channel)

    def get_key(self) -> Key:
        """Return what the hubs call the streams."""
        return self.channel

    def sent_by(self, last_id: str) -> Sent:
        """Return what a client sends that is at a position."""
        return Sent(cursor=Position.parse(last_id) if last_id else None)

    def position_of(self, event_id: str) -> str:
        """Return the position that the id of an event stands for."""
        return event_id

    def publish_payload(self, payload: str) -> None:
        """Publish something without history."""
        self.admin.publish(self.channel.decode(), payload)

    def kill_connections(self) -> None:
        """Close all connections."""
        self.server.kill_pubsub()
        self.admin.client_kill_filter(_type="normal", skipme=True)

    def close(self) -> None:
        """Close what the machine itself has opened."""
        self.redis.close()
        self.redis.connection_pool.disconnect()

    def _open(self) -> RedisConnection:
        assert self.is_reachable.wait(PATIENCE)
        return open_connection(self.redis)

    def _subscribe(self) -> PubSubConnection:
        assert self.is_reachable.wait(PATIENCE)
        connection = LossyConnection(self.redis)
        self.subscriptions.append(connection)
        return connection

    @initialize(target=clients, is_latest=st.sampled_from([False, False, False, True]))
    def begin(self, is_latest: bool) -> MultipleResults[Client]:
        """Begin the log, with a client of each kind."""
        if is_latest:
            self.retention = Retention(1, is_latest=True)
            self.may_be_reset = True
        self.read_top()
        return multiple(self._connect(0, "", is_read=True), self._connect(1, "", is_read=False))

    def read_top(self) -> None:
        """Ask Redis for the newest position."""
        for _ in range(50):
            with contextlib.suppress(redis.ConnectionError):
                self.top = str(self.find_top())
                self.positions.append(self.top)
                return
        raise AssertionError("no Redis")

    @rule(number=st.sampled_from([1, 1, 1, 2, 5, 40]), is_large=st.booleans())
    def publish(self, number: int, is_large: bool) -> None:
        """Publish some events."""
        for _ in range(number):
            text = f"{self.number} {TEXT}" if number > 5 else str(self.number)
            if is_large and number == 1:
                text += TEXT * 30
            head = b'{"data": %b, "id": "' % json.dumps(text).encode()
            event = NewEntry(head, b'"}', self.retention.length, 3600)
            before = self.top
            self.append(event)
            self.read_top()
            assert self.top not in self.logged
            self.logged[self.top] = Logged(before, text)
            self.number += 1
        self.may_be_reset |= len(self.logged) > KEPT

    @rule(target=clients, hub=st.integers(0, 1), is_read=st.booleans())
    def connect(self, hub: int, is_read: bool) -> Client:
        """A client comes, without a position."""
        return self._connect(hub, "", is_read)

    @rule(target=left, client=consumes(clients))
    def disconnect(self, client: Client) -> Client:
        """A client loses its connection."""
        client.receive()
        client.close()
        self.connected.remove(client)
        self._check(client)
        return client

    @rule(target=clients, client=consumes(left), hub=st.integers(0, 1), is_read=st.booleans())
    def resume(self, client: Client, hub: int, is_read: bool) -> Client:
        """A client reconnects, to this process or to the other one."""
        return self._connect(hub, client.last_id, is_read)

    @rule(target=clients, back=st.integers(0, 400), hub=st.integers(0, 1), is_read=st.booleans())
    def come_back_later(self, back: int, hub: int, is_read: bool) -> Client:
        """A client reconnects with any earlier position, perhaps a lost one."""
        position = self.positions[-1 - back % len(self.positions)]
        return self._connect(hub, position, is_read)

    @rule(client=clients)
    def stall(self, client: Client) -> None:
        """A client stops reading."""
        client.is_stalled = True

    @rule(client=clients)
    def go_on(self, client: Client) -> None:
        """A client reads again."""
        client.is_stalled = False

    @rule(kept=st.integers(1, 10))
    def trim(self, kept: int) -> None:
        """The log is trimmed."""
        self.may_be_reset = True
        # Without events it is no stream, and a hub may find out at any time that they have expired.
        with contextlib.suppress(redis.ResponseError):
            self.admin.xtrim(self.key, maxlen=kept, approximate=False)

    @rule()
    def expire(self) -> None:
        """The events expire."""
        self.may_be_reset = True
        self.admin.expire(self.key, _SPARE)

    @rule()
    def take_snapshot(self) -> None:
        """Redis saves a snapshot."""
        dump: Any = self.admin.dump(self.key)
        self.snapshot, self.snapshot_top = dump, self.top

    @rule(is_cut=st.booleans())
    def restart_older(self, is_cut: bool) -> None:
        """Redis comes back with its last snapshot, with or without the subscriptions."""
        if self.snapshot is None:
            return
        self.may_be_reset = True
        with self.admin.pipeline(transaction=True) as pipeline:
            pipeline.delete(self.key)
            pipeline.restore(self.key, (3600 + _SPARE) * 1000, self.snapshot)
            pipeline.execute()
        self.top = self.snapshot_top
        if is_cut:
            self.lose_subscriptions()

    @rule(
        target=clients,
        lost=st.integers(1, 5),
        more=st.sampled_from([0, 0, 1, 3]),
        behind=st.sampled_from([0, 0, 1, 2]),
        hub=st.integers(0, 1),
        is_read=st.booleans(),
    )
    def repeat_offsets(self, lost: int, more: int, behind: int, hub: int, is_read: bool) -> Client:
        """Redis loses events that clients have received, and reuses their offsets.

        Of these, as many come as were lost, or more, before any process is connected again. A
        client comes back that was where the log was, or a little behind.
        """
        self.take_snapshot()
        self.publish(lost, is_large=False)
        self.wait_for_all()
        position = self.positions[-1 - min(behind, lost - 1)]
        self.is_reachable.clear()
        try:
            self.lose_subscriptions()
            self.restart_older(is_cut=True)
            self.publish(lost + more, is_large=False)
        finally:
            self.is_reachable.set()
        client = self._connect(hub, position, is_read)
        self.wait_for_all()
        return client

    @rule()
    def lose_subscriptions(self) -> None:
        """Redis closes all connections."""
        self.kill_connections()

    @rule(number=st.integers(1, 3))
    def lose_events(self, number: int) -> None:
        """The next events do not arrive, with all connections open."""
        for connection in [*self.subscriptions]:
            connection.to_lose = number

    @rule()
    def lose_everything(self) -> None:
        """Redis forgets everything, with all connections open."""
        self.may_be_reset = True
        self.admin.flushall()
        self.read_top()

    @rule()
    def publish_without_history(self) -> None:
        """A publisher without history publishes an event."""
        self.publish_payload('{"data": "foreign"}')

    @rule()
    def settle(self) -> None:
        """All clients read, and reach the end of the log."""
        for client in self.connected:
            client.is_stalled = False
        self.wait_for_all()

    def wait_for_all(self) -> None:
        """Wait until all clients that read have reached the end of the log."""
        wait_until(self._are_all_there, "all clients are where the log is")

    @invariant()
    def records_are_sound(self) -> None:
        """No client has a silent gap, or an event twice."""
        self.tally["steps"] += 1
        self._check_all()

    def teardown(self) -> None:
        """Look at the records for the last time."""
        try:
            self.settle()
        finally:
            for client in self.connected:
                client.close()
            for hub in self.hubs:
                hub.stop()
            self.close()

    def _connect(self, hub: int, last_id: str, is_read: bool) -> Client:
        kind = ReadClient if is_read else SocketClient
        client = kind(self.hubs[hub], self.get_key(), last_id, self.sent_by(last_id))
        self.connected.append(client)
        return client

    def _are_all_there(self) -> bool:
        self._check_all()
        reading = [client for client in self.connected if not client.is_stalled]
        for client in reading:
            client.come_back(self.sent_by(client.last_id))
        return all(client.last_id == self.top for client in reading)

    def _check_all(self) -> None:
        for client in self.connected:
            if not client.is_stalled:
                client.receive()
                self._check(client)

    def _check(self, client: Client) -> None:
        """Check the events since the last check."""
        events, client.parser.events = client.parser.events, []
        for event in [event._replace(id=self.position_of(event.id)) for event in events]:
            self.tally[event.type] += 1
            assert event.type == "sse.reset" or not client.must_be_reset
            if event.type == "sse.open":
                self._check_opening(client, event)
            elif event.type == "sse.reset":
                assert json.loads(event.data)["reason"]
                assert self.may_be_reset, f"a reset without a cause: {event}"
                assert event.id in self.positions
                client.must_be_reset = False
            elif event.data == "foreign":
                assert event.id == client.last_id
            else:
                before, data = self.logged[event.id]
                assert before == client.last_id, f"{event.id} after {client.last_id}"
                assert data == event.data
            client.last_id = event.id

    def _check_opening(self, client: Client, event: parser.Event) -> None:
        recovered = json.loads(event.data)["recovered"]
        assert event.id in self.positions
        if client.last_id:
            assert event.id == client.last_id, f"opened at {event.id} after {client.last_id}"
            client.must_be_reset = not recovered
        else:
            assert not recovered


class MarkedHistoryMachine(HistoryMachine):
    """The same with streams that may have several channels, whose ids have marks."""

    def __init__(self) -> None:
        self.marked: dict[Mark, str] = {}
        super().__init__()

    def find_top(self) -> Position:
        """Ask for the newest position once."""
        position = super().find_top()
        self.marked[Mark.of(position)] = str(position)
        return position

    def get_key(self) -> Key:
        """Return what the hubs call the streams."""
        return (self.channel,)

    def sent_by(self, last_id: str) -> Sent:
        """Return what a client sends that is at a position."""
        position = Position.parse(last_id)
        return Sent() if position is None else Sent(marks=[Mark.of(position)])

    def position_of(self, event_id: str) -> str:
        """Return the position that the id of an event stands for."""
        marks = parse(event_id, [self.channel])
        assert marks is not None
        assert isinstance(marks[0], Mark)
        return self.marked[marks[0]]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make hubs look soon for what they have missed."""
    monkeypatch.setattr(log_queries, "COMPARE_AFTER", 0.3)
    monkeypatch.setattr(log_queries, "_LOOK_EVERY", 0.1)
    monkeypatch.setattr(log_queries, "_ASK_AGAIN_AFTER", 0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a Redis for the model."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("machine", [HistoryMachine, MarkedHistoryMachine])
@pytest.mark.parametrize(
    ("examples", "steps"),
    [(20, 30), pytest.param(150, 40, marks=[pytest.mark.long, pytest.mark.timeout(3600)])],
)
def test_the_guarantee(
    server: RedisServer, machine: type[HistoryMachine], examples: int, steps: int
) -> None:
    """Every logged event in order since `sse.open`, or a reset; no gap and nothing twice."""
    machine.server = server
    run(machine, examples, steps)


def run(machine: type[HistoryMachine], examples: int, steps: int) -> None:
    """Run a machine again and again."""
    begin = time.monotonic()
    machine.tally = Counter()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            # Other threads are at work, so that what is shrunk may not fail any more.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            print_blob=False,
        ),
    )
    print(dict(machine.tally), f"in {time.monotonic() - begin:.0f} s")
