"""Signals of streams that were taken over from gunicorn: the same, and exact to the byte."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import PATIENCE, wait_until

APP = "tests.apps.signalling:app"
HEAD_END = b"\r\n\r\n"


@contextmanager
def serve(
    worker: str, folder: Path, redis_server: RedisServer, *options: str, **settings: object
) -> Iterator[Site]:
    """Run the site that logs its signals."""
    settings = {"REDIS_URL": redis_server.url, **settings}
    options = (*servers.WORKERS[worker], *options)
    with servers.gunicorn(folder, *options, app=APP, settings=settings) as site:
        yield site


def sent(site: Site, *names: str) -> list[dict[str, Any]]:
    """Return the values of signals with these names, in order."""
    lines = [line for line in site.log().splitlines() if line.startswith("signal ")]
    parsed = [json.loads(line.removeprefix("signal ")) for line in lines]
    return [values for name, _, values in parsed if name in names]


def wait_sent(site: Site, name: str, number: int = 1) -> list[dict[str, Any]]:
    """Wait until a signal was sent this many times."""
    wait_until(lambda: len(sent(site, name)) >= number, f"{name} is sent {number} times")
    return sent(site, name)


class RawClient:
    """Counts the bytes of a stream's body, as they come over the network."""

    def __init__(self, site: Site, query: str, *, version: str = "1.1", buffer: int = 0) -> None:
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((LOOPBACK, site.port))
        self.socket.sendall(f"GET /stream?{query} HTTP/{version}\r\nHost: test\r\n\r\n".encode())
        self._raw = b""

    @property
    def body(self) -> bytes:
        """The bytes of the body so far."""
        return self._raw.partition(HEAD_END)[2]

    def leave(self) -> bytes:
        """Close this side, as a leaving client does, and return the whole body."""
        self.socket.shutdown(socket.SHUT_WR)
        return self.read_until(lambda _: False)

    def read_until(self, condition: Callable[[bytes], bool]) -> bytes:
        """Read until a condition on the body holds, or to the end."""
        while not condition(self.body):
            piece = self.socket.recv(1 << 16)
            if not piece:
                break
            self._raw += piece
        return self.body


Connect = Callable[..., RawClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a function that makes clients, whose sockets are closed when the test ends."""
    with ExitStack() as stack:

        def connect(*arguments: Any, **options: Any) -> RawClient:
            client = RawClient(*arguments, **options)
            stack.callback(client.socket.close)
            return client

        yield connect


def is_whole(text: str, version: str = "1.1") -> Callable[[bytes], bool]:
    """Return a condition: a text has arrived, and its event and chunk are complete."""
    end = b"\n\n\r\n" if version == "1.1" else b"\n\n"

    def check(body: bytes) -> bool:
        return text.encode() in body and body.endswith(end)

    return check


@pytest.mark.parametrize(
    ("worker", "version"), [("sync", "1.0"), ("sync", "1.1"), ("gthread", "1.1"), ("gevent", "1.1")]
)
def test_a_stream(
    worker: str,
    version: str,
    shared_redis: RedisServer,
    tmp_path: Path,
    channel: str,
    connect: Connect,
) -> None:
    """The signals report each client, its reason and its bytes exactly, in order."""
    with serve(worker, tmp_path, shared_redis) as site:
        client = connect(site, f"channel={channel}&user=alice", version=version)
        client.read_until(bool)
        other = connect(site, f"channel={channel}&user=bob", version=version)
        other.read_until(bool)
        site.get(f"/publish-many?number=5&size=10&channel={channel}")
        client.read_until(is_whole("4 xxxx", version))
        other.read_until(is_whole("4 xxxx", version))
        body = client.leave()
        [gone] = wait_sent(site, "client_gone")
        site.get(f"/publish-many?number=1&size=20&channel={channel}")
        other.read_until(is_whole("x" * 20, version))
        other_body = other.leave()
        [_, other_gone] = wait_sent(site, "client_gone", 2)
        assert sent(site, "client_connected") == [
            {"channel": channel, "channels": [channel], "client": name} for name in ("alice", "bob")
        ]
        assert 0 < gone.pop("duration") < 20
        assert gone == {
            "channel": channel,
            "channels": [channel],
            "client": "alice",
            "reason": "client",
            "events_sent": 5,
            "bytes_sent": len(body),
        }
        assert (other_gone["events_sent"], other_gone["bytes_sent"]) == (6, len(other_body))
        delivered = sent(site, "messages_delivered")
        assert sum(values["messages"] * values["listeners"] for values in delivered) == 5 * 2 + 1
        assert len(sent(site, "message_published")) == 6


@pytest.mark.parametrize("worker", servers.WORKERS)
def test_a_stop(
    worker: str, shared_redis: RedisServer, tmp_path: Path, channel: str, connect: Connect
) -> None:
    """When the server stops, receivers get a signal for each stream before the process ends."""
    with serve(worker, tmp_path, shared_redis) as site:
        clients = [connect(site, f"channel={channel}") for _ in range(20)]
        for client in clients:
            client.read_until(bool)
        wait_sent(site, "client_connected", 20)
        site.process.send(signal.SIGTERM)
        bodies = [client.read_until(lambda _: False) for client in clients]
        site.process.wait()
        gone = sent(site, "client_gone")
        assert [values["reason"] for values in gone] == ["stop"] * 20
        assert [values["bytes_sent"] for values in gone] == [len(body) for body in bodies]


def test_streams_that_the_server_reads(
    shared_redis: RedisServer, tmp_path: Path, channel: str, connect: Connect
) -> None:
    """Streams that are not taken over cause the same signals, up to the end."""
    with serve("gthread", tmp_path, shared_redis, SSE_DIRECT=False) as site:
        first, second = (connect(site, f"channel={channel}", version="1.0") for _ in range(2))
        for client in (first, second):
            client.read_until(bool)
        shared_redis.admin.publish(channel, '{"data": "x"}')
        for client in (first, second):
            client.read_until(is_whole("x", "1.0"))
        body = first.leave()
        wait_sent(site, "client_gone")
        site.process.send(signal.SIGTERM)
        second_body = second.read_until(lambda _: False)
        site.process.wait()
        gone = sent(site, "client_gone")
        assert [values["reason"] for values in gone] == ["client", "stop"]
        assert [values["events_sent"] for values in gone] == [1, 1]
        assert [values["bytes_sent"] for values in gone] == [len(body), len(second_body)]


@pytest.mark.parametrize("history", [0, 1000])
def test_clients_that_lag(
    history: int, shared_redis: RedisServer, tmp_path: Path, channel: str, connect: Connect
) -> None:
    """Late data is counted too: data that waited, and events from the log."""
    with serve("sync", tmp_path, shared_redis, SSE_HISTORY=history) as site:
        client = connect(site, f"channel={channel}", buffer=4096)
        client.read_until(lambda body: b"sse.open" in body if history else bool(body))
        site.get(f"/publish-many?number=100&size=5000&channel={channel}")
        wait_until(
            lambda: any(values["lagging"] for values in sent(site, "messages_delivered")),
            "the client lags",
        )
        client.read_until(is_whole("99 xxx"))
        site.get(f"/publish-many?number=1&size=3&channel={channel}")
        client.read_until(is_whole("0 xxx\n"))
        body = client.leave()
        [gone] = wait_sent(site, "client_gone")
        assert (gone["events_sent"], gone["bytes_sent"]) == (101, len(body))
        replayed = [values["replayed"] for values in sent(site, "messages_delivered")]
        assert any(replayed) == bool(history)


def test_a_client_that_does_not_read(
    shared_redis: RedisServer, tmp_path: Path, channel: str, connect: Connect
) -> None:
    """It is gone for that reason, and data that it has not received is not counted."""
    with serve("sync", tmp_path, shared_redis, SSE_MAX_PENDING=100_000) as site:
        client = connect(site, f"channel={channel}", buffer=4096)
        client.read_until(bool)
        site.get(f"/publish-many?number=100&size=20000&channel={channel}")
        [gone] = wait_sent(site, "client_gone")
        assert gone["reason"] == "overflow"
        assert 0 < gone["bytes_sent"] < 1_000_000
        assert gone["bytes_sent"] / 20000 <= gone["events_sent"] < 100


def test_clients_that_get_no_stream(
    redis_server: RedisServer, tmp_path: Path, channel: str, connect: Connect
) -> None:
    """The reason is the limit or Redis; the loss of Redis is reported as well."""
    with serve("sync", tmp_path, redis_server, SSE_MAX_CLIENTS=1) as site:
        client = connect(site, f"channel={channel}")
        client.read_until(bool)
        connect(site, f"channel={channel}&user=second").read_until(lambda _: False)
        [full] = wait_sent(site, "client_refused")
        assert full == {
            "channel": channel,
            "channels": [channel],
            "client": "second",
            "reason": "full",
        }
        client.socket.close()
        wait_sent(site, "client_gone")
        redis_server.stop()
        connect(site, f"channel={channel}").read_until(lambda _: False)
        [_, refused] = wait_sent(site, "client_refused", 2)
        assert refused["reason"] == "redis"
        redis_server.start()
        connect(site, f"channel={channel}").read_until(bool)
        [regained] = wait_sent(site, "redis_regained")
        assert regained["attempts"] >= 1
        assert len(sent(site, "redis_lost")) == 1


def test_a_channel_that_redis_forbids(
    redis_server: RedisServer, tmp_path: Path, channel: str, connect: Connect
) -> None:
    """A client is refused, and an open stream is gone when its channel is no longer allowed."""
    redis_server.admin.acl_setuser(
        "limited", enabled=True, passwords=["+x"], categories=["+@all"], channels=["allowed"]
    )
    url = redis_server.url.replace("//", "//limited:x@")
    with serve("sync", tmp_path, redis_server, REDIS_URL=url) as site:
        connect(site, "channel=forbidden").read_until(lambda _: False)
        assert [values["reason"] for values in wait_sent(site, "client_refused")] == ["redis"]
        client = connect(site, "channel=allowed")
        client.read_until(bool)
        redis_server.admin.acl_setuser("limited", enabled=True, reset_channels=True)
        body = client.read_until(lambda _: False)
        [gone] = wait_sent(site, "client_gone")
        assert (gone["reason"], gone["bytes_sent"]) == ("redis", len(body))


@pytest.mark.parametrize("worker", ["sync", "gevent"])
def test_slow_receivers(
    worker: str, shared_redis: RedisServer, tmp_path: Path, channel: str, connect: Connect
) -> None:
    """Clients connect and get events while a receiver sleeps."""
    with serve(worker, tmp_path, shared_redis, SLOW=True) as site:
        begin = time.monotonic()
        with StreamClient(site.port, channel).open() as one:
            wait_sent(site, "client_connected")
            with StreamClient(site.port, channel).open() as two:
                shared_redis.admin.publish(channel, '{"data": "x"}')
                assert one.wait_events(1) == two.wait_events(1)
        assert time.monotonic() - begin < 20
        assert len(sent(site, "client_connected", "client_gone")) == 1
