"""The streams when Redis goes away, comes back, or can't be reached."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until


@pytest.fixture(
    params=[
        servers.gunicorn,
        pytest.param(servers.gthread, marks=pytest.mark.long),
        servers.sync,
    ],
    ids=["gevent", "gthread", "sync"],
)
def site(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path
) -> Iterator[Site]:
    """Return a site with a Redis of its own."""
    settings = {"REDIS_URL": redis_server.url, "SSE_KEEPALIVE": 0.5}
    with request.param(tmp_path, settings=settings) as site:
        yield site


def test_streams_outlive_a_restart(site: Site, redis_server: RedisServer) -> None:
    """Streams stay open with keep-alives, and continue when Redis is back."""
    with StreamClient(site.port, "a").open() as first, StreamClient(site.port, "b").open() as other:
        redis_server.stop()
        seen = first.parser.comments
        first.wait_comments(seen + 3)
        redis_server.start()
        for stream, channel in ((first, "a"), (other, "b")):
            redis_server.wait_listeners(1, channel)
            redis_server.admin.publish(channel, '{"data": "back"}')
            assert [event.data for event in stream.wait_events(1)] == ["back"]
    assert site.log().count("Redis is unavailable") == 1
    assert site.log().count("Redis is back") == 1


def test_streams_outlive_a_kill(site: Site, redis_server: RedisServer) -> None:
    """After `CLIENT KILL TYPE pubsub` events flow again."""
    with StreamClient(site.port, "a").open() as stream:
        for number in range(3):
            assert redis_server.kill_pubsub() == 1
            redis_server.wait_listeners(1, "a")
            redis_server.admin.publish("a", f'{{"data": "{number}"}}')
            assert stream.wait_events(number + 1)[number].data == str(number)


def test_a_new_client_during_an_outage(site: Site, redis_server: RedisServer) -> None:
    """It is told when to reconnect, with 200 and a complete answer, and one line is logged."""
    redis_server.stop()
    clients = [StreamClient(site.port) for _ in range(4)]
    for client in clients:
        client.wait_end()
        assert client.status == 200
        assert client.complete
        assert client.retry is not None
        assert 3000 <= client.retry <= 6000
        assert client.parser.comments == 0
        client.close()
    assert site.log().count("Redis is unavailable") == 1
    redis_server.start()
    with StreamClient(site.port).open() as client:
        assert site.publish("x") == 1
        client.wait_events(1)


def test_a_client_that_waits_is_served_when_redis_comes(
    site: Site, redis_server: RedisServer
) -> None:
    """A client that connects shortly before Redis is back gets a stream, and no retry."""
    redis_server.stop()
    with StreamClient(site.port, "patient") as client:
        wait_until(lambda: "Redis is unavailable" in site.log(), "noticed")
        redis_server.start()
        client.open()
        assert client.retry is None
        redis_server.wait_listeners(1, "patient")


def test_a_wrong_password(tmp_path: Path) -> None:
    """The client is rejected and the log names the reason, until Redis accepts the password."""
    server = RedisServer(tmp_path, requirepass="right")
    server.start()
    url = server.url.replace("//", "//:wrong@")
    try:
        with servers.gunicorn(tmp_path, settings={"REDIS_URL": url}) as site:
            with StreamClient(site.port).wait_end() as client:
                assert (client.status, client.complete) == (200, True)
                assert client.retry is not None
            assert "Redis is unavailable: invalid username-password pair" in site.log()
            # The rule changes, as it does when an operator mends it.
            server.admin.config_set("requirepass", "wrong")
            with StreamClient(site.port).open() as client:
                assert site.publish("x") == 1
                client.wait_events(1)
    finally:
        server.options["requirepass"] = "wrong"
        server.stop()


def test_maxclients_reached(tmp_path: Path) -> None:
    """A Redis that is full is an outage, which ends when there is room."""
    server = RedisServer(tmp_path)
    server.start()
    try:
        server.admin.config_set("maxclients", 1)
        with servers.gunicorn(tmp_path, settings={"REDIS_URL": server.url}) as site:
            with StreamClient(site.port).wait_end() as client:
                assert (client.status, client.complete) == (200, True)
                assert client.retry is not None
            assert site.log().count("Redis is unavailable") == 1
            server.admin.config_set("maxclients", 10)
            with StreamClient(site.port).open() as client:
                assert site.publish("x") == 1
                client.wait_events(1)
    finally:
        server.stop()


def test_no_redis_at_start(redis_server: RedisServer, tmp_path: Path) -> None:
    """An application starts without Redis, and works when Redis is available."""
    redis_server.stop()
    with servers.gunicorn(tmp_path, settings={"REDIS_URL": redis_server.url}) as site:
        with StreamClient(site.port).wait_end() as client:
            assert client.retry is not None
        redis_server.start()
        with StreamClient(site.port).open() as client:
            assert site.publish("x") == 1
            client.wait_events(1)


def test_a_missing_url_is_an_error(tmp_path: Path) -> None:
    """If the application names no Redis, the answer is a 500, and the log says what to set."""
    with servers.gunicorn(tmp_path) as site:
        with StreamClient(site.port).read_headers() as client:
            assert client.status == 500
        wait_until(lambda: "Must set a redis connection URL in app config." in site.log(), "logged")


def test_a_sentinel_failover(tmp_path: Path) -> None:
    """`redis+sentinel://` follows the master that the sentinels name."""
    first, second = RedisServer(tmp_path), RedisServer(tmp_path)
    first.start()
    second.options["replicaof"] = f"127.0.0.1 {first.port}"
    second.start()
    sentinel = RedisServer(tmp_path)
    sentinel.start_sentinel("demo", first)
    wait_until(lambda: sentinel.admin.sentinel_slaves("demo"), "the replica is known")
    try:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/demo/0"
        with (
            servers.gunicorn(tmp_path, settings={"REDIS_URL": url}) as site,
            StreamClient(site.port).open() as client,
        ):
            assert site.publish("before") == 1
            client.wait_events(1)
            first.stop()
            second.wait_listeners(1)
            wait_until(lambda: site.publish("after") == 1, "published through the new one")
            assert client.wait_events(2)[1].data == "after"
    finally:
        for server in (sentinel, first, second):
            server.stop()
