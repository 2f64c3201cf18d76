"""Straight to the socket: only where that is safe, and never a byte astray."""

import itertools
import random
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest
import trustme

from flask_sse import _server
from tests.support import servers
from tests.support.client import StreamClient
from tests.support.gathering import gather
from tests.support.parser import Event, Parser
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.servers import GUNICORN_SETTINGS, Site
from tests.support.waiting import wait_until

GEVENT: Final = ("--worker-class", "gevent")
# What gunicorn itself has written of a response's body: nothing, where it was handed over.
LOG_SENT: Final = ("--access-logfile", "-", "--access-logformat", "%(m)s %(U)s sent %(B)s")
# What gunicorn has learned in the course of time.
HTTP_VERSIONS: Final = ["HTTP/1.1", *(["HTTP/2"] if "http_protocols" in GUNICORN_SETTINGS else [])]
PROTOCOLS: Final = ["uwsgi"] if "protocol" in GUNICORN_SETTINGS else []
DATA: Final = "mixed Case, ünïcode \U0001f980"
EVENT: Final = Event("message", DATA, "")


@contextmanager
def serve(
    folder: Path, redis_server: RedisServer, *options: str, app: str = servers.SITE, **more: object
) -> Iterator[Site]:
    """Run the site with options of gunicorn's, and settings."""
    settings = {"REDIS_URL": redis_server.url, **more}
    with servers.gunicorn(folder, *GEVENT, *LOG_SENT, *options, app=app, settings=settings) as site:
        yield site


def publish(server: RedisServer, channel: str, data: object = DATA) -> None:
    """Publish past the application, once somebody listens."""
    server.wait_listeners(1, channel)
    assert server.admin.publish(channel, f'{{"data": "{data}"}}') == 1


def was_direct(site: Site) -> bool:
    """Whether the one stream that the site has served was written past gunicorn."""
    wait_until(lambda: "GET /stream sent" in site.log(), "the stream is in the access log")
    [line] = [line for line in site.log().splitlines() if line.startswith("GET /stream sent")]
    return int(line.split()[-1]) == 0


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_the_documented_command_line_is_direct(
    version: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """It takes no more than the gevent worker, with HTTP/1.1 as with HTTP/1.0."""
    with serve(tmp_path, shared_redis) as site:
        with StreamClient(site.port, "plain", version=version).open() as client:
            publish(shared_redis, "plain")
            assert client.wait_events(1) == [EVENT]
        assert was_direct(site)


@pytest.mark.parametrize("how", ["SSE_DIRECT", "--no-sendfile", "Content-Length"])
def test_it_can_be_switched_off(how: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """By our setting, and by gunicorn's own that forbids to look into files."""
    options = (how,) if how.startswith("--") else ()
    settings = {"SSE_DIRECT": False} if how == "SSE_DIRECT" else {}
    app = "tests.apps.wrapped:measuring" if how == "Content-Length" else servers.SITE
    with serve(tmp_path, shared_redis, *options, app=app, **settings) as site:
        with StreamClient(site.port, "off").open() as client:
            publish(shared_redis, "off")
            assert client.wait_events(1) == [EVENT]
        assert not was_direct(site)


@pytest.mark.parametrize("name", ["iterating", "filing"])
def test_a_middleware_that_rewrites_the_body(
    name: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """Each byte passes the middleware, though it hands gunicorn's question on."""
    with serve(tmp_path, shared_redis, app=f"tests.apps.wrapped:{name}") as site:
        with StreamClient(site.port, "upper").open() as client:
            received = bytearray()
            publish(shared_redis, "upper", "a lower-case text")
            while b"\n\n" not in received[-8:]:
                received += client.socket.recv(4096)
            assert b"DATA:A LOWER-CASE TEXT\n\n" in received
        assert not was_direct(site)


def test_a_middleware_that_compresses(shared_redis: RedisServer, tmp_path: Path) -> None:
    """What a client decompresses is the stream."""
    with serve(tmp_path, shared_redis, app="tests.apps.wrapped:zipping") as site:
        url = f"http://{LOOPBACK}:{site.port}/stream?channel=zip"
        with httpx.stream("GET", url, timeout=10) as answer:
            assert answer.headers["content-encoding"] == "gzip"
            unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            parser = Parser()
            pieces = answer.iter_raw()
            parser.feed(unpacker.decompress(next(pieces)))
            publish(shared_redis, "zip")
            while not parser.events:
                parser.feed(unpacker.decompress(next(pieces)))
            assert parser.events == [EVENT]
        assert not was_direct(site)


def test_a_middleware_that_leaves_the_body_alone(shared_redis: RedisServer, tmp_path: Path) -> None:
    """Who wraps `start_response` alone keeps nobody from being direct."""
    with serve(tmp_path, shared_redis, app="tests.apps.wrapped:adding") as site:
        with StreamClient(site.port, "adding").open() as client:
            assert client.headers["x-added"] == "yes"
            publish(shared_redis, "adding")
            assert client.wait_events(1) == [EVENT]
        assert was_direct(site)


@pytest.mark.parametrize("version", HTTP_VERSIONS)
def test_tls(version: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """Over TLS, with HTTP/1.1 or HTTP/2, the server does the writing."""
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "both.pem"
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    pem = str(tmp_path / "both.pem")
    options = ["--certfile", pem, "--keyfile", pem]
    http2 = version == "HTTP/2"
    if http2:
        options += ["--http-protocols", "h2,h1"]
    # A stream of HTTP/2 has no socket of its own, whose end would tell that the client went.
    with serve(tmp_path, shared_redis, *options, SSE_KEEPALIVE=1) as site:
        with (
            httpx.Client(http2=http2, verify=context, timeout=10) as client,
            client.stream("GET", f"https://localhost:{site.port}/stream?channel=tls") as answer,
        ):
            assert answer.http_version == version
            parser = Parser()
            pieces = answer.iter_raw()
            while not parser.comments:
                parser.feed(next(pieces))
            publish(shared_redis, "tls")
            while not parser.events:
                parser.feed(next(pieces))
            assert parser.events == [EVENT]
        assert not was_direct(site)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_protocol(protocol: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """To a proxy that speaks uwsgi, the server does the writing, without chunks."""
    variables = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/stream",
        "QUERY_STRING": "channel=uwsgi",
        "REQUEST_URI": "/stream?channel=uwsgi",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "test",
        "SERVER_PORT": "80",
    }
    block = b"".join(
        len(text).to_bytes(2, "little") + text.encode()
        for text in itertools.chain.from_iterable(variables.items())
    )
    with serve(tmp_path, shared_redis, "--protocol", protocol) as site:
        with socket.create_connection((LOOPBACK, site.port), 10) as proxy:
            proxy.sendall(b"\0" + len(block).to_bytes(2, "little") + b"\0" + block)
            received = b""
            while b":\n\n" not in received:
                received += proxy.recv(4096)
            publish(shared_redis, "uwsgi")
            while not received.endswith(f"data:{DATA}\n\n".encode()):
                received += proxy.recv(4096)
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"chunked" not in head
        parser = Parser()
        parser.feed(body)
        assert parser.events == [EVENT]
        assert not was_direct(site)


def test_a_reader_that_stalls_and_resumes(redis_server: RedisServer, tmp_path: Path) -> None:
    """100,000 events to tiny receive buffers: all of them, once, in order, whole."""
    number = 100_000
    with serve(tmp_path, redis_server, SSE_MAX_PENDING=1 << 26) as site:
        clients = [StreamClient(site.port, "stall", receive_buffer=2048).open() for _ in range(3)]
        redis_server.wait_listeners(1, "stall")
        publisher = threading.Thread(target=publish_all, args=[redis_server, "stall", number])
        publisher.start()
        chance = random.Random(7)
        while any(len(client.events) < number for client in clients):
            client = chance.choice([c for c in clients if len(c.events) < number])
            # One reads for a while, and the others do not.
            goal = min(number, len(client.events) + chance.randrange(1, 5000))
            gather([client], lambda client, goal=goal: len(client.events) >= goal)  # type: ignore[misc]
        publisher.join()
        for client in clients:
            assert [event.data for event in client.events] == [str(n) for n in range(number)]
            assert client.retry is None
            client.close()


def publish_all(server: RedisServer, channel: str, number: int) -> None:
    """Publish the numbers up to *number*, many at a time."""
    for start in range(0, number, 1000):
        pipeline = server.admin.pipeline(transaction=False)
        for n in range(start, start + 1000):
            pipeline.publish(channel, f'{{"data": "{n}"}}')
        pipeline.execute()


def test_no_byte_reaches_the_wrong_client(shared_redis: RedisServer, tmp_path: Path) -> None:
    """Clients of many channels come and go under load; each hears its channel alone."""
    names = [f"astray-{number}" for number in range(30)]
    done = threading.Event()
    heard: list[int] = []

    def load() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            pipeline = shared_redis.admin.pipeline(transaction=False)
            for name in names:
                pipeline.publish(name, f'{{"data": "{name} {number} {"x" * 500}"}}')
            pipeline.execute()

    def visit(seed: int, port: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            name = chance.choice(names)
            with StreamClient(port, name, receive_buffer=chance.choice([2048, None])).open() as one:
                # Those that go in the middle of what is being written to them, too.
                one.wait_events(chance.randrange(1, 40))
                numbers = [int(event.data.split()[1]) for event in one.events]
                assert {event.data.split()[0] for event in one.events} == {name}
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                heard.append(len(numbers))

    with serve(tmp_path, shared_redis) as site:
        loader = threading.Thread(target=load)
        loader.start()
        try:
            run_together([threading.Thread(target=visit, args=[n, site.port]) for n in range(8)])
        finally:
            done.set()
            loader.join()
        assert "Redis is away" not in site.log()
        assert "Traceback" not in site.log()
        assert len(heard) == 8 * 60, "no visit has failed"


def run_together(threads: list[threading.Thread]) -> None:
    """Run threads and wait for them."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_thousand_channels(shared_redis: RedisServer, tmp_path: Path) -> None:
    """Each client of a channel of its own gets its own event."""
    with serve(tmp_path, shared_redis, "--worker-connections", "3000") as site:
        clients = {f"own-{n}": StreamClient(site.port, f"own-{n}") for n in range(2000)}
        gather(list(clients.values()), lambda client: client.parser.comments > 0)
        pipeline = shared_redis.admin.pipeline(transaction=False)
        for name in clients:
            pipeline.publish(name, f'{{"data": "{name}"}}')
        assert set(pipeline.execute()) == {1}
        gather(list(clients.values()), lambda client: len(client.events) == 1)
        for name, client in clients.items():
            assert client.events[0].data == name
            client.close()
        wait_until(lambda: shared_redis.admin.pubsub_channels("own-*") == [], "unsubscribed")


def test_a_keep_alive_connection_goes_on_after_a_stream(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Who is sent away may use its connection for another request."""
    redis_server.stop()
    with serve(tmp_path, redis_server) as site, httpx.Client(timeout=10) as client:
        base = f"http://{LOOPBACK}:{site.port}"
        assert client.get(base + "/stream").text.startswith("retry:")
        assert client.get(base + "/").text == "hello"


def test_what_a_slow_or_silent_peer_may_cost_is_bounded(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    """The kernel gives up a peer that does not answer, and keeps a bounded buffer for it."""
    with socket.create_connection((LOOPBACK, shared_redis.port)) as peer:
        _server.bound_costs(peer)
        timeout = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert timeout == 30_000
        # Linux doubles what it is told, for its own bookkeeping (socket(7)).
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 << 17
