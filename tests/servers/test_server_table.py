"""The table of servers in the documentation, cell by cell."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from select import select

import psutil
import pytest

from tests.support import behavior, servers
from tests.support.behavior import Body, Leave, Server, Slow, Stop
from tests.support.client import StreamClient
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until


@pytest.fixture(scope="module", params=behavior.as_params(behavior.SERVERS))
def server(request: pytest.FixtureRequest) -> Server:
    """Return each row of the table."""
    server: Server = request.param
    return server


@pytest.fixture(scope="module")
def site(
    server: Server, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Return the site; if the row needs no keep-alive, none is sent before a test is over."""
    settings = {
        "REDIS_URL": shared_redis.url,
        "SSE_KEEPALIVE": 600 if server.leave is Leave.AT_ONCE else 0.5,
        # If only the server's memory is the limit, its thread must have time to take the data.
        "SSE_MAX_PENDING": 4_000_000 if server.slow is Slow.COLLECTED else 100_000,
    }
    with server.serve(tmp_path_factory.mktemp("table"), settings=settings) as site:
        yield site


def test_who_writes(server: Server, site: Site, shared_redis: RedisServer) -> None:
    """The body of a stream lives for as long as the server reads it."""

    def is_read() -> bool:
        return bool(json.loads(site.get("/alive"))["EventStream"])

    with StreamClient(site.port, "body").open() as client:
        if server.threads == 1:
            # The server can't tell before the stream has ended.
            with StreamClient(site.port, path="/") as other:
                assert shared_redis.admin.publish("body", '{"data": "x"}') == 1
                client.wait_events(1)
                assert not select([other.socket], [], [], 0)[0]
                client.close()
                assert other.read_headers().status == 200
        else:
            wait_until(lambda: is_read() is (server.body is Body.READ), server.body)


def test_a_client_that_leaves(site: Site, shared_redis: RedisServer) -> None:
    """Its subscription ends, without a keep-alive or with two of them."""
    with StreamClient(site.port, "left").open():
        assert shared_redis.listeners("left") == 1
    shared_redis.wait_listeners(0, "left")


def test_a_client_that_does_not_read(server: Server, site: Site, shared_redis: RedisServer) -> None:
    """Its subscription ends, and so does its connection if the table says so."""
    payload = json.dumps({"data": "x" * 50_000})
    # More than sockets hold.
    most = 400 if server.slow is Slow.COLLECTED else 1000
    with ExitStack() as stack:
        deaf = stack.enter_context(StreamClient(site.port, "deaf", receive_buffer=4096).open())
        # If no other stream can be open, nothing tells when an event has been sent.
        pace = None if server.threads == 1 else StreamClient(site.port, "pace").open()
        if pace is not None:
            stack.enter_context(pace)
        port: int = deaf.socket.getsockname()[1]
        for number in range(most):
            shared_redis.admin.publish("deaf", payload)
            if pace is not None:
                # The hub has sent what came before that.
                shared_redis.admin.publish("pace", '{"data": "x"}')
                pace.wait_events(number + 1)
            if not shared_redis.listeners("deaf"):
                break
        if server.slow is Slow.COLLECTED:
            assert shared_redis.listeners("deaf") == 1
        else:
            shared_redis.wait_listeners(0, "deaf")
        if server.slow is not Slow.DISCONNECTED:
            assert is_connected(site, port)
            deaf.close()
        wait_until(lambda: not is_connected(site, port), "disconnected")


def is_connected(site: Site, port: int) -> bool:
    """Whether the server still has the connection of the client on *port*."""
    family = [site.process.info, *site.process.info.children(recursive=True)]
    return any(
        connection.raddr
        and connection.raddr.port == port
        and connection.status == psutil.CONN_ESTABLISHED
        for process in family
        for connection in process.net_connections("tcp")
    )


def test_stop(server: Server, shared_redis: RedisServer, tmp_path: Path) -> None:
    """Streams end or are aborted, without a keep-alive that would wake them."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_KEEPALIVE": 600}
    with (
        server.serve(tmp_path, settings=settings) as site,
        StreamClient(site.port, "stop").open() as client,
    ):
        site.process.send(signal.SIGTERM)
        if server.stop is Stop.NEVER:
            with pytest.raises(subprocess.TimeoutExpired):
                site.process.wait(6)
            return
        client.wait_end()
        site.process.wait()
        # Without chunks nothing tells an end from a cut.
        if "transfer-encoding" in client.headers:
            assert client.complete is (server.stop in (Stop.ENDS, Stop.ENDS_LATE))


def test_the_documentation_has_this_table() -> None:
    """The file that it includes has the values that this module has tested."""
    text = (servers.ROOT / "docs" / "servers.inc").read_text()
    assert text.splitlines() == [*behavior.table()], "run: make server-table"
