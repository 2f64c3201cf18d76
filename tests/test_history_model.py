"""The guarantee of history as a model: whatever happens in whatever order, no silent gap.

Each client's record is checked by ids: every event follows the one before it in the log, or a
reset says that it does not. At the end every client is where the log is.
"""

import contextlib
import itertools
import json
import socket
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
import redis
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from flask_sse import _history, _logs
from flask_sse._connection import Connection, Terms
from flask_sse._history import Event, Position
from flask_sse._hub import Hub
from flask_sse._logs import History
from flask_sse._pubsub import PubSubConnection, open_connection
from flask_sse._settings import Retention
from flask_sse._subscriber import Follower
from tests.support.parser import Parser
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

KEPT: Final = 300
TEXT: Final = "x" * 3000

_names = itertools.count()


class Client:
    """A client that keeps a record; of the one kind or the other, as a server would serve it."""

    def __init__(self) -> None:
        self.last_id = ""
        self.is_stalled = False
        self.parser = Parser()

    def receive(self) -> None:
        """Note what has come."""

    def close(self) -> None:
        """Go away."""


class SocketClient(Client):
    """A client whose connection the hub serves."""

    def __init__(self, hub: Hub, channel: bytes, cursor: Position | None) -> None:
        super().__init__()
        server, self._socket = socket.socketpair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        server.setblocking(False)
        self._socket.setblocking(False)
        terms = Terms(b":\n", lambda: b"retry:7\n", 1 << 20, lambda _: None)
        descriptor = server.detach()

        def take() -> Connection:
            return Connection(descriptor, b"", terms, chunked=False, callbacks=[], cursor=cursor)

        hub.adopt(channel, take)

    def receive(self) -> None:
        """Read the socket."""
        with contextlib.suppress(BlockingIOError):
            while data := self._socket.recv(1 << 16):
                self.parser.feed(data)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class ReadClient(Client):
    """A client whose stream the server reads."""

    def __init__(self, hub: Hub, channel: bytes, cursor: Position | None) -> None:
        super().__init__()
        self._hub = hub
        self._channel = channel
        self._subscriber = Follower(1 << 16, cursor)
        hub.join(channel, self._subscriber)

    def receive(self) -> None:
        """Take what waits, as a server does that is asked for it."""
        while self._subscriber.is_confirmed:
            batches = self._subscriber.take(timeout=0)
            if not batches:
                return
            for batch in batches:
                self.parser.feed(batch.frames)

    def close(self) -> None:
        """Leave the hub."""
        self._hub.leave(self._channel, self._subscriber)


class HistoryMachine(RuleBasedStateMachine):
    """Two processes, a Redis that loses and forgets, and clients that come and go."""

    server: ClassVar[RedisServer]
    clients = Bundle("clients")
    left = Bundle("left")

    def __init__(self) -> None:
        super().__init__()
        self.channel = f"model-{next(_names)}".encode()
        self.admin = self.server.admin
        self.redis = redis.Redis(port=self.server.port)
        self.previous: dict[str, str] = {}
        self.top = ""
        self.snapshot: dict[bytes, tuple[bytes, str]] | None = None
        self.snapshot_top = ""
        self.number = 0
        self.connected: list[Client] = []
        history = History(lambda _: Retention(KEPT, is_latest=False), self._open, 0)
        connect = partial(PubSubConnection, self.redis)
        self.hubs = [
            Hub(connect, Flask("tests").json, linger=0.1, history=history) for _ in range(2)
        ]

    def _open(self) -> Any:
        return open_connection(self.redis)

    @initialize()
    def begin(self) -> None:
        """Begin the log."""
        self.top = self.read_top()

    def read_top(self) -> str:
        """Return the newest position in Redis."""
        for _ in range(50):
            with contextlib.suppress(redis.ConnectionError):
                return str(_history.newest_position(self.redis, self.channel))
        raise AssertionError("no Redis")

    @rule(number=st.sampled_from([1, 1, 1, 2, 5, 40]), is_large=st.booleans())
    def publish(self, number: int, is_large: bool) -> None:
        """Publish some events."""
        for _ in range(number):
            text = f"{self.number} {TEXT}" if number > 5 else str(self.number)
            if is_large and number == 1:
                text += TEXT * 30
            event = Event(b'{"data": %b, "id": "' % json.dumps(text).encode(), b'"}', KEPT, 3600)
            before = self.read_top()
            _history.append(self.redis, self.channel, event)
            self.top = self.read_top()
            assert self.top not in self.previous
            self.previous[self.top] = before
            self.number += 1

    @rule(target=clients, hub=st.integers(0, 1), is_read=st.booleans())
    def connect(self, hub: int, is_read: bool) -> Client:
        """A client comes, without a position."""
        return self._connect(hub, None, is_read)

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
        """A client comes back, to this process or to the other one."""
        cursor = Position.parse(client.last_id) if client.last_id else None
        new = self._connect(hub, cursor, is_read)
        new.last_id = client.last_id
        return new

    @rule(client=clients)
    def stall(self, client: Client) -> None:
        """A client stops reading."""
        client.is_stalled = True

    @rule(client=clients)
    def go_on(self, client: Client) -> None:
        """A client reads again."""
        client.is_stalled = False

    @rule(kept=st.integers(0, 10))
    def trim(self, kept: int) -> None:
        """The log is cut off."""
        self.admin.xtrim(_history.keys(self.channel)[1], maxlen=kept, approximate=False)

    @rule()
    def take_snapshot(self) -> None:
        """Redis saves what it has."""
        keys = [key for key in _history.keys(self.channel) if self.admin.exists(key)]
        dumps: Any = {key: self.admin.dump(key) for key in keys}
        self.snapshot, self.snapshot_top = dumps, self.top

    @rule()
    def restart_older(self) -> None:
        """Redis comes back with its last snapshot."""
        if self.snapshot is None:
            return
        dumps: Any = self.snapshot
        with self.admin.pipeline(transaction=True) as pipeline:
            pipeline.delete(*_history.keys(self.channel))
            for key, dump in dumps.items():
                pipeline.restore(key, 3_600_000, dump)
            pipeline.execute()
        self.top = self.snapshot_top
        self.lose_subscriptions()

    @rule(lost=st.integers(1, 5), more=st.integers(0, 5))
    def repeat_offsets(self, lost: int, more: int) -> None:
        """Redis loses some events, and gives their offsets to others."""
        self.take_snapshot()
        self.publish(lost, is_large=False)
        for client in self.connected:
            client.receive()
        self.restart_older()
        self.publish(lost + more, is_large=False)

    @rule()
    def lose_subscriptions(self) -> None:
        """Redis cuts everything."""
        self.server.kill_pubsub()
        self.admin.client_kill_filter(_type="normal", skipme=True)

    @rule()
    def lose_everything(self) -> None:
        """Redis forgets everything, with all connections open."""
        self.admin.delete(*_history.keys(self.channel))
        self.top = self.read_top()

    @rule()
    def publish_without_history(self) -> None:
        """Somebody publishes who knows nothing of the log."""
        self.admin.publish(self.channel.decode(), '{"data": "foreign"}')

    @rule()
    def settle(self) -> None:
        """All clients get where the log is."""
        for client in self.connected:
            client.is_stalled = False
        wait_until(self._are_all_there, "all clients are where the log is", 30)

    @invariant()
    def records_are_sound(self) -> None:
        """No client has a silent gap, or an event twice."""
        for client in self.connected:
            if not client.is_stalled:
                client.receive()
                self._check(client)

    def teardown(self) -> None:
        """Look at the records for the last time."""
        try:
            self.settle()
        finally:
            for client in self.connected:
                client.close()
            for hub in self.hubs:
                hub.stop()
            self.redis.close()
            self.redis.connection_pool.disconnect()

    def _connect(self, hub: int, cursor: Position | None, is_read: bool) -> Client:
        kind = ReadClient if is_read else SocketClient
        client = kind(self.hubs[hub], self.channel, cursor)
        self.connected.append(client)
        return client

    def _are_all_there(self) -> bool:
        self.records_are_sound()
        return all(client.last_id == self.top for client in self.connected)

    def _check(self, client: Client) -> None:
        """Check what has come since the last time."""
        events, client.parser.events = client.parser.events, []
        for event in events:
            data = json.loads(event.data) if event.type.startswith("sse.") else {}
            if event.type == "sse.open":
                is_known = event.id == client.last_id or not client.last_id
                assert is_known, f"opened at {event.id} after {client.last_id}"
            elif event.type == "sse.reset":
                assert data["reason"]
            elif event.data != "foreign":
                before = self.previous[event.id]
                assert before == client.last_id, f"{event.id} after {client.last_id}"
            client.last_id = event.id


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a Redis for the model, with hubs that look soon for what they have missed."""
    monkeypatch.setattr(_logs, "COMPARE_AFTER", 0.3)
    monkeypatch.setattr(_logs, "_LOOK_EVERY", 0.1)
    monkeypatch.setattr(_logs, "_ASK_AGAIN_AFTER", 0.05)
    server = RedisServer(tmp_path)
    server.start()
    HistoryMachine.server = server
    yield server
    server.stop()


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("examples", "steps"),
    [(12, 25), pytest.param(250, 40, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
)
def test_the_guarantee(examples: int, steps: int) -> None:
    """Every logged event in order since `sse.open`, or a reset; no gap and nothing twice."""
    run_state_machine_as_test(
        HistoryMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            print_blob=False,
        ),
    )
