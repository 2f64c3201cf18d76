"""Redis with sentinels, in this process and with any installed version of redis-py."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
import trustme
from flask import Flask, g, request

from flask_sse import sse
from flask_sse._state import State
from flask_sse.testing import open_stream
from tests.support.listening import listening
from tests.support.presence import streams_of
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until

MakeApp = Callable[..., Flask]


class Trio(NamedTuple):
    """A primary, its replica, and the sentinel that watches them under the name ``demo``."""

    primary: RedisServer
    replica: RedisServer
    sentinel: RedisServer

    @property
    def url(self) -> str:
        """The URL for ``REDIS_URL``."""
        return f"redis+sentinel://{LOOPBACK}:{self.sentinel.port}/demo/0"


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    """Return a primary, a replica and a sentinel that knows both."""
    primary = RedisServer(tmp_path)
    primary.options["repl-diskless-sync-delay"] = "0"
    replica = RedisServer(tmp_path, replicaof=f"{LOOPBACK} {primary.port}")
    trio = Trio(primary, replica, RedisServer(tmp_path))
    try:
        primary.start()
        replica.start()
        trio.sentinel.start_sentinel("demo", primary)
        wait_until(lambda: trio.sentinel.admin.sentinel_slaves("demo"), "the replica is known")
        yield trio
    finally:
        for server in reversed(trio):
            server.stop()


def test_publish_finds_the_primary_and_follows_it(make_app: MakeApp, trio: Trio) -> None:
    """Events go to the primary that the sentinel names, and to the next one after a failover."""
    with make_app(REDIS_URL=trio.url).app_context():
        with listening(trio.primary.admin) as listener:
            for data in ("first", "second"):
                assert sse.publish(data) == 1
            assert [payload["data"] for payload in listener.payloads(2)] == ["first", "second"]
        assert sse.redis.set("kept", "by the primary")
        assert sse.redis.wait(1, 5000) == 1
        trio.primary.stop()
        wait_until(_can_publish, "published through the new primary")
        with listening(trio.replica.admin) as listener:
            assert sse.publish("third") == 1
            assert [payload["data"] for payload in listener.payloads(1)] == ["third"]
        assert sse.redis.get("kept") == b"by the primary"


def _can_publish() -> bool:
    try:
        sse.publish("meanwhile")
    except redis.ConnectionError:
        return False
    return True


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Return a socket that accepts connections and never answers."""
    with socket.create_server((LOOPBACK, 0)) as server:
        server.setblocking(False)
        yield server


def _attempts(silent: socket.socket) -> int:
    """Return how many connections there have been."""
    number = 0
    while True:
        try:
            connection, _ = silent.accept()
        except BlockingIOError:
            return number
        connection.close()
        number += 1


def test_silent_sentinels(make_app: MakeApp, silent: socket.socket) -> None:
    """Each is asked once, and not again and again; options for sentinels are numbers."""
    host = f"{LOOPBACK}:{silent.getsockname()[1]}"
    url = f"redis+sentinel://{host},{host}/demo?sentinel_socket_timeout=0.2"
    with make_app(REDIS_URL=url).app_context():
        with pytest.raises(redis.ConnectionError, match="No master found for 'demo'") as caught:
            sse.publish("x")
        assert str(caught.value).count(f"{host}: Timeout") == 2
    assert _attempts(silent) == 2


def test_a_silent_sentinel_beside_another(
    make_app: MakeApp, trio: Trio, silent: socket.socket
) -> None:
    """The other is asked after a share of the time, and first from then on."""
    url = trio.url.replace("//", f"//{LOOPBACK}:{silent.getsockname()[1]},")
    # Switches that are off are off.
    url = f"{url}?ssl=false&sentinel_ssl=false&sentinel_health_check_interval=1&decode_responses=1"
    app = make_app(REDIS_URL=url)
    with app.app_context():
        for _ in range(2):
            assert sse.publish("x") == 0
            trio.primary.admin.client_kill_filter(_type="normal", skipme=True)
        assert _attempts(silent) == 1
        assert sse.redis.echo("text") == "text"
    done = app.test_cli_runner().invoke(args=["sse", "doctor", "--patience", "5"])
    assert "an event arrives" in done.stdout


SECURE = [
    "rediss+sentinel://app:secret@{host}/demo?ssl_ca_certs={ca}&sentinel_password=hidden",
    "redis+sentinel://app:secret@{host}/demo?ssl=true&ssl_cert_reqs=none&sentinel_ssl=yes"
    "&sentinel_username=default&sentinel_password=hidden&sentinel_socket_keepalive=true",
    "rediss+sentinel://app:secret@{host}/demo?ssl_cert_reqs=CERT_NONE&sentinel_password=hidden"
    "&sentinel_ssl_ca_certs={ca}&sentinel_ssl_cert_reqs=CERT_REQUIRED&sentinel_db=0",
]


def test_tls_and_logins(make_app: MakeApp, tmp_path: Path) -> None:
    """The servers and the sentinels each have TLS and a login of their own."""
    authority = trustme.CA()
    ca = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(ca)
    primary = RedisServer.over_tls(tmp_path, authority)
    sentinel = RedisServer.over_tls(tmp_path, authority)
    sentinel.options["requirepass"] = "hidden"
    try:
        primary.start()
        user = ["app", "on", ">secret", "~*", "&*", "+@all"]
        primary.admin.execute_command("ACL", "SETUSER", *user)
        sentinel.start_sentinel("demo", primary)
        for url in SECURE:
            app = make_app(REDIS_URL=url.format(host=f"{LOOPBACK}:{sentinel.port}", ca=ca))
            with app.app_context(), open_stream(app) as stream:
                assert "app" in str(sse.redis.acl_whoami())
                assert sse.publish("x") == 1
                assert stream.get(timeout=30).data == "x"
        plain = f"rediss+sentinel://{LOOPBACK}:{sentinel.port}/demo?sentinel_ssl=false"
        with make_app(REDIS_URL=plain).app_context(), pytest.raises(redis.ConnectionError):
            sse.publish("x")
    finally:
        sentinel.stop()
        primary.stop()


@pytest.mark.parametrize("value", ["none", "CERT_NONE"])
def test_a_certificate_of_its_own(make_app: MakeApp, tmp_path: Path, value: str) -> None:
    """Without its check, as hosting services need it, each connection is made."""
    server = RedisServer.over_tls(tmp_path, trustme.CA())
    server.start()
    try:
        url = f"rediss://{LOOPBACK}:{server.port}?ssl_cert_reqs={value}"
        app = make_app(REDIS_URL=url, SSE_HISTORY=10)
        with app.app_context(), open_stream(app):
            assert sse.publish("x") == 1
            assert sse.redis.ping()
    finally:
        server.stop()


def test_presence_follows_the_primary(make_app: MakeApp, trio: Trio) -> None:
    """After a failover, the members are known to the new primary, and one more can join."""
    app = make_app(REDIS_URL=trio.url, SSE_PRESENCE=["*"])
    app.before_request(_name_client)
    with open_stream(app, url="/stream?client=alice"):
        wait_until(lambda: streams_of(app, "sse") == {"alice": 1}, "alice has joined")
        trio.primary.stop()
        wait_until(lambda: _members_or_none(app) == {"alice": 1}, "the new primary knows alice")
        with open_stream(app, url="/stream?client=bob"):
            wait_until(lambda: _members_or_none(app) == {"alice": 1, "bob": 1}, "bob has joined")
    State.of(app).rest(PATIENCE)


def _name_client() -> None:
    g.sse_client = request.args.get("client")


def _members_or_none(app: Flask) -> dict[str, int] | None:
    try:
        return streams_of(app, "sse")
    except redis.RedisError:
        return None
