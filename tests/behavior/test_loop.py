"""The hub's loop with handed-over connections, and possible errors."""

import gc
import os
import resource
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest
import redis
from flask import Flask

from flask_sse._hub.connection import Connection, Terms
from flask_sse._hub.hangups import Watch
from flask_sse._hub.hub import Hub
from flask_sse._hub.log_queries import History
from flask_sse._hub.loop import Loop, Options
from flask_sse._hub.service import Service
from flask_sse._hub.subscriber import Follower
from flask_sse._redis import log_commands
from flask_sse._redis.log_commands import NewEntry
from flask_sse._redis.log_source import ServerLogs
from flask_sse._redis.outage import Outage
from flask_sse._redis.pubsub import Arrival, PubSubConnection, open_connection
from flask_sse._redis.server_subscription import ServerSubscription
from flask_sse._settings import Retention
from tests.support.parser import Parser
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, wait_until

EXITING = ROOT / "tests" / "apps" / "exiting.py"
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
OPENING = HEAD + b":\n"
REJECTION = HEAD + b"retry:7\n"


@pytest.fixture
def hub(redis_server: RedisServer) -> Iterator[Hub]:
    """Return a hub that sends no comments, and whose loop ends with the test."""
    with ending(redis_server, keepalive=None) as hub:
        yield hub


@pytest.fixture
def commenting_hub(redis_server: RedisServer) -> Iterator[Hub]:
    """Return a hub that sends comments, and whose loop ends with the test."""
    with ending(redis_server, keepalive=0.4) as hub:
        yield hub


@contextmanager
def ending(redis_server: RedisServer, keepalive: float | None) -> Iterator[Hub]:
    """Make a hub whose loop ends with the block."""
    connect = partial(PubSubConnection, redis.Redis(port=redis_server.port))
    hub = Hub(
        partial(ServerSubscription, connect), Flask("tests").json, keepalive=keepalive, linger=0.1
    )
    yield hub
    hub.stop()
    wait_until(lambda: hub_threads() == 0, "the loop has ended")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return a stack that closes the clients in the end."""
    with ExitStack() as stack:
        yield stack


def hub_threads() -> int:
    """Return how many hubs have a loop."""
    return sum(thread.name == "flask-sse-hub" for thread in threading.enumerate())


class Client:
    """A client whose connection a hub adopts."""

    def __init__(self, hub: Hub, stack: ExitStack, channel: bytes = b"x") -> None:
        self.ended = threading.Event()
        server, self.socket = socket.socketpair()
        stack.callback(self.socket.close)
        server.setblocking(False)
        self.socket.settimeout(PATIENCE)
        terms = Terms(b":\n", lambda: b"retry:7\n", 1 << 20, self._note_end)
        descriptor = server.detach()
        hub.adopt(channel, lambda: Connection(descriptor, HEAD, terms, chunked=False, callbacks=[]))

    def _note_end(self, _: Sequence[object]) -> None:
        assert not self.ended.is_set(), "once"
        self.ended.set()

    def expect(self, expected: bytes) -> None:
        """Wait for just these bytes."""
        received = b""
        while len(received) < len(expected):
            piece = self.socket.recv(len(expected) - len(received))
            assert piece, f"ended after {received!r}"
            received += piece
        assert received == expected


def test_a_connection_opens_when_redis_has_confirmed(
    hub: Hub, stack: ExitStack, redis_server: RedisServer
) -> None:
    """Events published after the first bytes arrive, and the stream ends when the client leaves."""
    client = Client(hub, stack)
    client.expect(OPENING)
    assert redis_server.admin.publish("x", '{"data": "hello"}') == 1
    client.expect(b"data:hello\n\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.socket.recv(1) == b""
    assert client.ended.wait(PATIENCE)
    redis_server.wait_listeners(0, "x")


def test_a_connection_is_rejected_without_redis(
    hub: Hub, stack: ExitStack, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a while, and gets a complete answer that says when to reconnect."""
    monkeypatch.setattr("flask_sse._hub.service.CONFIRM_WITHIN", 0.5)
    redis_server.stop()
    client = Client(hub, stack)
    client.expect(REJECTION)
    assert client.socket.recv(1) == b""
    assert client.ended.wait(PATIENCE)


def test_a_client_that_leaves_before_its_stream_opens(
    hub: Hub, stack: ExitStack, redis_server: RedisServer
) -> None:
    """It is closed, and leaves nothing behind, even if Redis is unavailable."""
    redis_server.stop()
    client = Client(hub, stack)
    client.socket.close()
    assert client.ended.wait(PATIENCE)


def test_a_stop_ends_all(hub: Hub, stack: ExitStack) -> None:
    """Open connections end, and later connections are rejected."""
    clients = [Client(hub, stack, b"%d" % number) for number in range(20)]
    for client in clients:
        client.expect(OPENING)
    hub.stop()
    for client in clients:
        assert client.ended.is_set()
        assert client.socket.recv(1) == b""


def new_loop(watch: Watch) -> Loop:
    """Return a loop that has nothing to do."""

    def connect() -> PubSubConnection:
        raise AssertionError("without channels, Redis is not needed")

    subscribe = partial(ServerSubscription, connect)
    options = Options(subscribe, Flask("tests").json, keepalive=None, linger=0)
    return Loop(options, Outage(None), deque(), watch)


def test_a_stop_while_the_loop_ends() -> None:
    """A thread that stops a loop does not wait for one that has just found nothing to do."""
    loop = new_loop(Watch())

    def retire() -> bool:
        loop.stop_requested = True
        return True

    loop.run(retire)
    assert loop.has_stopped.is_set()


def test_a_loop_without_descriptors() -> None:
    """If one of its descriptors can't be opened, the others are closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    watch = Watch()
    free = os.dup(0)
    os.close(free)
    failures = 0
    loop: Loop | None = None
    while loop is None:
        before = os.listdir("/dev/fd")
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + failures, hard))
        try:
            loop = new_loop(watch)
        except OSError:
            failures += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert loop or os.listdir("/dev/fd") == before
    loop.close()
    assert failures >= 3, "once for each descriptor"


def test_a_silent_connection_gets_comments(commenting_hub: Hub, stack: ExitStack) -> None:
    """They come again and again."""
    client = Client(commenting_hub, stack)
    client.expect(OPENING)
    for _ in range(4):
        client.expect(b":\n")


class Resuming:
    """A client that resumes before 200 events of a log, which it gets page by page."""

    def __init__(self, stack: ExitStack, redis_server: RedisServer) -> None:
        self.parser = Parser()
        self.ended = threading.Event()
        client = redis.Redis(port=redis_server.port)
        stack.callback(client.close)
        self.start = log_commands.newest_position(client, b"x")
        for number in range(200):
            data = f"{number} {'x' * 3000}".encode()
            log_commands.append(
                client, b"x", NewEntry(b'{"data": "%b", "id": "' % data, b'"}', 1000, 60)
            )
        log = History(
            lambda _: Retention(1000, is_latest=False),
            partial(ServerLogs, partial(open_connection, client)),
            0,
        )
        connect = partial(PubSubConnection, client)
        self.hub = Hub(
            partial(ServerSubscription, connect),
            Flask("tests").json,
            keepalive=0.02,
            linger=0.1,
            history=log,
        )
        stack.callback(self.hub.stop)
        server, self.socket = socket.socketpair()
        stack.callback(self.socket.close)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        server.setblocking(False)
        self.socket.setblocking(False)
        terms = Terms(b":\n", lambda: b"", 50_000, lambda _: self.ended.set())
        self.connection = Connection(
            server.detach(), b"", terms, chunked=False, callbacks=[], resume_after=self.start
        )

    def join(self) -> None:
        """Let the hub serve it."""
        self.hub.adopt(b"x", lambda: self.connection)

    def has_taken_all(self) -> bool:
        """Read what is there; whether nothing more waits."""
        with suppress(BlockingIOError):
            self.parser.feed(self.socket.recv(1 << 16))
        return not self.connection.is_lagging

    def has_the_log(self) -> bool:
        """Read what is there; whether it is as much as there is in the log."""
        self.has_taken_all()
        return len(self.parser.events) == 201


def test_a_page_for_a_client_for_which_a_comment_waits(
    stack: ExitStack, redis_server: RedisServer
) -> None:
    """It stays in the log until the comment has gone, and its client is not disconnected."""
    client = Resuming(stack, redis_server)
    client.join()
    wait_until(lambda: client.connection.is_lagging, "the first page waits for the client")
    redis_server.freeze()
    try:
        wait_until(client.has_taken_all, "Redis is asked for the next page")
        wait_until(lambda: client.connection.is_lagging, "a comment waits for the client")
    finally:
        redis_server.thaw()
    # Its question is asked after the other one has been answered.
    follower = Follower(1 << 20, client.start)
    client.hub.join(b"x", follower)
    assert follower.wait_confirmed(PATIENCE)
    client.hub.leave(follower)
    wait_until(client.has_the_log, "the client gets all events")
    numbers = [int(event.data.split()[0]) for event in client.parser.events[1:]]
    assert numbers == [*range(200)]


def test_a_page_for_a_client_that_is_gone(
    stack: ExitStack, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is closed, and nothing says that it reads too slowly."""
    client = Resuming(stack, redis_server)
    # The hub finds that out when it writes.
    client.socket.shutdown(socket.SHUT_RD)
    client.join()
    assert client.ended.wait(PATIENCE)
    assert "SSE_MAX_PENDING" not in caplog.text


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (Loop, "_serve_redis"),
        (Loop, "_check_shutdown"),
        (Service, "keep_time"),
        (Service, "dispatch"),
    ],
)
def test_a_defect_costs_no_stream(
    part: type,
    name: str,
    commenting_hub: Hub,
    stack: ExitStack,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each failure is logged once, and the streams have their loop again."""
    client = Client(commenting_hub, stack)
    client.expect(OPENING)
    fails = iter([True])
    real = getattr(part, name)

    def fail_once(loop: object, *arguments: object) -> None:
        if next(fails, False):
            raise ZeroDivisionError("unforeseen")
        real(loop, *arguments)

    monkeypatch.setattr(part, name, fail_once)
    wait_until(lambda: "ZeroDivisionError: unforeseen" in caplog.text, "it has failed")
    assert caplog.text.count("the event hub has failed") == 1
    client.expect(b":\n")
    redis_server.wait_listeners(1, "x")
    wait_until(lambda: redis_server.admin.publish("x", '{"data": "on"}') == 1, "published")
    while not (received := client.socket.recv(1 << 16)).endswith(b"data:on\n\n"):
        assert received.strip(b":\n") == b"", "only comments come before it"
    another = Client(commenting_hub, stack, b"y")
    another.expect(OPENING)


def test_what_cannot_be_added_is_rejected(
    stack: ExitStack, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """If a failure keeps a stream from beginning, its client is told to reconnect."""

    def retention(channel: bytes) -> Retention | None:
        if channel == b"bad":
            raise ZeroDivisionError("unforeseen")
        return None

    client = redis.Redis(port=redis_server.port)
    stack.callback(client.close)
    history = History(retention, partial(ServerLogs, partial(open_connection, client)), 0)
    connect = partial(PubSubConnection, client)
    hub = Hub(
        partial(ServerSubscription, connect), Flask("tests").json, linger=0.1, history=history
    )
    stack.callback(hub.stop)
    rejected = Client(hub, stack, b"bad")
    rejected.expect(REJECTION)
    assert rejected.socket.recv(1) == b"", "the descriptor is closed"
    assert rejected.ended.wait(PATIENCE), "its place is free"
    follower = Follower(1)
    hub.join(b"bad", follower)
    assert not follower.wait_confirmed(PATIENCE)
    assert follower.has_ended()
    assert follower.reason == "error"
    hub.leave(follower)
    wait_until(lambda: caplog.text.count("ZeroDivisionError: unforeseen") == 2, "both are logged")
    Client(hub, stack, b"good").expect(OPENING)
    assert redis_server.listeners("bad") == 0


def test_what_cannot_be_watched_is_rejected(
    hub: Hub, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the user can't watch more descriptors, a client is told to reconnect."""
    Client(hub, stack).expect(OPENING)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("flask_sse._hub.clients.Clients.add", refuse)
        refused = Client(hub, stack, b"y")
        refused.expect(REJECTION)
        assert refused.ended.wait(PATIENCE)
    assert "can't be watched" in caplog.text
    Client(hub, stack, b"y").expect(OPENING)


def test_events_that_came_with_the_end_of_redis(
    stack: ExitStack, redis_server: RedisServer
) -> None:
    """Events before the close of a connection are delivered, even if both are read together."""
    busy, read = threading.Event(), threading.Event()

    def connect() -> PubSubConnection:
        connection = PubSubConnection(redis.Redis(port=redis_server.port))
        real = connection.read

        def read_late(limit: int) -> list[Arrival]:
            if busy.is_set():
                assert read.wait(PATIENCE)
            return real(limit)

        connection.read = read_late  # type: ignore[method-assign]
        return connection

    hub = Hub(partial(ServerSubscription, connect), Flask("tests").json, linger=0.1)
    client = Client(hub, stack)
    client.expect(OPENING)
    busy.set()
    for number in range(5):
        assert redis_server.admin.publish("x", f'{{"data": "{number}"}}') == 1
    redis_server.stop()
    read.set()
    client.expect(b"".join(b"data:%d\n\n" % number for number in range(5)))
    hub.stop()


@pytest.mark.parametrize("rule", ["-ping", "-unsubscribe"])
def test_a_user_who_may_not_do_everything(
    rule: str, stack: ExitStack, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without PING or UNSUBSCRIBE, the connection is kept, nothing is lost, no stream ends."""
    admin = redis_server.admin
    admin.execute_command("ACL", "SETUSER", "few", "on", ">secret", "allchannels", "+@pubsub", rule)
    client = redis.Redis(port=redis_server.port, username="few", password="secret")
    connect = partial(PubSubConnection, client, ping_after=0.1, answer_within=1)
    hub = Hub(partial(ServerSubscription, connect), Flask("tests").json, linger=0.1)
    stays = Client(hub, stack)
    stays.expect(OPENING)
    [before] = admin.client_list(_type="pubsub")
    for _ in range(20):
        other = Client(hub, stack, b"other")
        other.expect(OPENING)
        assert admin.publish("other", '{"data": "here"}') == 1
        other.expect(b"data:here\n\n")
        other.socket.close()
        assert other.ended.wait(PATIENCE)
    refused = "cmdstat_ping" if rule == "-ping" else "cmdstat_unsubscribe"

    def refusals() -> int:
        stats = admin.info("commandstats").get(refused, {})
        return int(stats.get("rejected_calls", 0))

    wait_until(lambda: refusals() > 3, "Redis has refused the command")
    [after] = admin.client_list(_type="pubsub")
    assert before["id"] == after["id"]
    assert admin.publish("x", '{"data": "on"}') == 1
    stays.expect(b"data:on\n\n")
    assert not caplog.text
    hub.stop()


def test_a_client_that_has_gone_is_forgotten_at_once(
    stack: ExitStack, redis_server: RedisServer
) -> None:
    """Even with a long keep-alive, nothing of an ended stream is kept until it is due."""
    connect = partial(PubSubConnection, redis.Redis(port=redis_server.port))
    hub = Hub(partial(ServerSubscription, connect), Flask("tests").json, keepalive=3600, linger=0.1)

    def connections() -> int:
        return sum(type(thing) is Connection for thing in gc.get_objects())

    # Those of other tests must not go meanwhile.
    gc.collect()
    before = connections()
    clients = [Client(hub, stack, b"gone") for _ in range(50)]
    for client in clients:
        client.expect(OPENING)
    assert connections() == before + 50
    for client in clients:
        client.socket.close()
    for client in clients:
        assert client.ended.wait(PATIENCE)
    gc.collect()
    wait_until(lambda: connections() == before, "no connection is kept")
    hub.stop()


def test_a_connection_that_comes_too_late_is_closed(
    stack: ExitStack, redis_server: RedisServer
) -> None:
    """A hub that is stopped while it connects leaves no connection behind."""
    may_connect = threading.Event()

    def connect() -> PubSubConnection:
        assert may_connect.wait(PATIENCE)
        return PubSubConnection(redis.Redis(port=redis_server.port, client_name="late"))

    def late() -> bool:
        return any(client["name"] == "late" for client in redis_server.admin.client_list())

    hub = Hub(partial(ServerSubscription, connect), Flask("tests").json, linger=0.1)
    client = Client(hub, stack)
    wait_until(
        lambda: any(thread.name == "flask-sse-connect" for thread in threading.enumerate()),
        "it connects",
    )
    hub.stop()
    assert client.ended.wait(PATIENCE)
    wait_until(lambda: hub_threads() == 0, "the loop has ended")
    may_connect.set()
    wait_until(
        lambda: not any(thread.name == "flask-sse-connect" for thread in threading.enumerate()),
        "it has connected",
    )
    wait_until(lambda: not late(), "closed")


def test_a_stop_that_is_told_again(shared_redis: RedisServer) -> None:
    """Under gevent, quitting a worker raises `SystemExit` in a hub that is already stopping."""
    server, client = socket.socketpair()
    with server, client:
        server.setblocking(False)
        number = server.fileno()
        with subprocess.Popen(
            [sys.executable, "-m", "gevent.monkey", EXITING, str(shared_redis.port), str(number)],
            pass_fds=[number],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"told again\n"
            server.close()
            client.settimeout(PATIENCE)
            received = b"".join(iter(partial(client.recv, 1 << 16), b""))
        assert received.endswith(b"\r\n0\r\n\r\n"), "what waited, and the last chunk"
