"""The hand-over: only if it is safe, with nothing left behind, and without misdirected bytes."""

import contextlib
import itertools
import json
import random
import resource
import signal
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import pytest
import trustme

from flask_sse._system import sockets
from tests.support import servers
from tests.support.client import StreamClient
from tests.support.gathering import gather
from tests.support.nginx import nginx
from tests.support.parser import Event, Parser
from tests.support.processes import LOOPBACK, free_port, running
from tests.support.redis_server import RedisServer
from tests.support.servers import GUNICORN_SETTINGS, Site
from tests.support.waiting import PATIENCE, wait_until

# What gunicorn itself has written of a response's body: nothing, where it was handed over.
LOG_SENT: Final = ("--access-logfile", "-", "--access-logformat", "%(m)s %(U)s?%(q)s sent %(B)s")
# What gunicorn has learned in the course of time.
HTTP_VERSIONS: Final = ["HTTP/1.1", *(["HTTP/2"] if "http_protocols" in GUNICORN_SETTINGS else [])]
PROTOCOLS: Final = ["uwsgi"] if "protocol" in GUNICORN_SETTINGS else []
DATA: Final = "mixed Case, ünïcode \U0001f980"
EVENT: Final = Event("message", DATA, "")


@contextmanager
def serve(
    folder: Path,
    redis_server: RedisServer,
    worker: str,
    *options: str,
    app: str = servers.SITE,
    **more: object,
) -> Iterator[Site]:
    """Run the site with a worker, options of gunicorn's, and settings."""
    settings = {"REDIS_URL": redis_server.url, **more}
    options = (*servers.WORKERS[worker], *LOG_SENT, *options)
    with servers.gunicorn(folder, *options, app=app, settings=settings) as site:
        yield site


Start = Callable[..., Site]
"""Starts the site with a worker, or returns the one that runs."""


@pytest.fixture(scope="module")
def start(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Return a function like :func:`serve`, for sites that no test stops."""
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("standing")
        standing = servers.Standing(folder, stack, REDIS_URL=shared_redis.url)

        def start(worker: str, *options: str, app: str = servers.SITE, **settings: object) -> Site:
            options = (*servers.WORKERS[worker], *LOG_SENT, *options)
            return standing.gunicorn(*options, app=app, **settings)

        yield start


def publish(server: RedisServer, channel: str, data: object = DATA) -> None:
    """Publish directly to Redis, once there is a listener."""
    server.wait_listeners(1, channel)
    assert server.admin.publish(channel, f'{{"data": "{data}"}}') == 1


def was_handed_over(site: Site, channel: str) -> bool:
    """Whether the only stream of a channel was taken over from gunicorn."""
    begin = f"GET /stream?channel={channel} sent"
    wait_until(lambda: begin in site.log(), "the stream is in the access log")
    [line] = [line for line in site.log().splitlines() if line.startswith(begin)]
    return int(line.split()[-1]) == 0


@pytest.mark.parametrize("worker", servers.WORKERS)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_the_documented_command_line_is_direct(
    worker: str, version: str, shared_redis: RedisServer, start: Start, channel: str
) -> None:
    """The gevent worker is enough, with HTTP/1.1 and with HTTP/1.0."""
    site = start(worker)
    with StreamClient(site.port, channel, version=version).open() as client:
        publish(shared_redis, channel)
        assert client.wait_events(1) == [EVENT]
    assert was_handed_over(site, channel)


@pytest.mark.parametrize("worker", servers.MOST_USED)
@pytest.mark.parametrize("how", ["SSE_DIRECT", "--no-sendfile", "Content-Length"])
def test_it_can_be_switched_off(
    worker: str, how: str, shared_redis: RedisServer, start: Start, channel: str
) -> None:
    """Our setting turns it off, and so does gunicorn's own setting against sendfile."""
    options = (how,) if how.startswith("--") else ()
    settings = {"SSE_DIRECT": False} if how == "SSE_DIRECT" else {}
    app = "tests.apps.wrapped:measuring" if how == "Content-Length" else servers.SITE
    site = start(worker, *options, app=app, **settings)
    with StreamClient(site.port, channel).open() as client:
        publish(shared_redis, channel)
        assert client.wait_events(1) == [EVENT]
    assert not was_handed_over(site, channel)


@pytest.mark.parametrize("worker", servers.MOST_USED)
@pytest.mark.parametrize("name", ["iterating", "filing"])
def test_a_middleware_that_rewrites_the_body(
    worker: str, name: str, shared_redis: RedisServer, start: Start, channel: str
) -> None:
    """Each byte passes through the middleware, even if it forwards gunicorn's `fileno` call."""
    site = start(worker, app=f"tests.apps.wrapped:{name}")
    with StreamClient(site.port, channel).open() as client:
        received = bytearray()
        publish(shared_redis, channel, "a lower-case text")
        while b"\n\n" not in received[-8:]:
            received += client.socket.recv(4096)
        assert b"DATA:A LOWER-CASE TEXT\n\n" in received
    assert not was_handed_over(site, channel)


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_a_middleware_that_compresses(
    worker: str, shared_redis: RedisServer, start: Start, channel: str
) -> None:
    """What a client decompresses is the stream."""
    site = start(worker, app="tests.apps.wrapped:zipping")
    url = f"http://{LOOPBACK}:{site.port}/stream?channel={channel}"
    with httpx.stream("GET", url, timeout=PATIENCE) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        parser = Parser()
        pieces = answer.iter_raw()
        parser.feed(unpacker.decompress(next(pieces)))
        publish(shared_redis, channel)
        while not parser.events:
            parser.feed(unpacker.decompress(next(pieces)))
        assert parser.events == [EVENT]
    assert not was_handed_over(site, channel)


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_a_middleware_that_leaves_the_body_alone(
    worker: str, shared_redis: RedisServer, start: Start, channel: str
) -> None:
    """A middleware that wraps only `start_response` does not prevent the hand-over."""
    site = start(worker, app="tests.apps.wrapped:adding")
    with StreamClient(site.port, channel).open() as client:
        assert client.headers["x-added"] == "yes"
        publish(shared_redis, channel)
        assert client.wait_events(1) == [EVENT]
    assert was_handed_over(site, channel)


@pytest.mark.parametrize(
    ("worker", "version"),
    # gunicorn's default worker knows no HTTP/2.
    [
        pair
        for pair in itertools.product(servers.WORKERS, HTTP_VERSIONS)
        if pair != ("sync", "HTTP/2")
    ],
)
def test_tls(worker: str, version: str, shared_redis: RedisServer, tmp_path: Path) -> None:
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
    with serve(tmp_path, shared_redis, worker, *options, SSE_KEEPALIVE=1) as site:
        with (
            httpx.Client(http2=http2, verify=context, timeout=PATIENCE) as client,
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
        assert not was_handed_over(site, "tls")


@pytest.mark.parametrize("worker", servers.MOST_USED)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_protocol(
    worker: str, protocol: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
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
    with serve(tmp_path, shared_redis, worker, "--protocol", protocol) as site:
        with socket.create_connection((LOOPBACK, site.port), PATIENCE) as proxy:
            proxy.sendall(b"\0" + len(block).to_bytes(2, "little") + b"\0" + block)
            received = b""
            while b":\n" not in received:
                received += proxy.recv(4096)
            publish(shared_redis, "uwsgi")
            while not received.endswith(f"data:{DATA}\n\n".encode()):
                received += proxy.recv(4096)
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"chunked" not in head
        parser = Parser()
        parser.feed(body)
        assert parser.events == [EVENT]
        assert not was_handed_over(site, "uwsgi")


@pytest.mark.long
@pytest.mark.parametrize("worker", servers.WORKERS)
def test_a_reader_that_stalls_and_resumes(
    worker: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    """100,000 events to tiny receive buffers: all of them, once, in order, whole."""
    number = 100_000
    with serve(tmp_path, redis_server, worker, SSE_MAX_PENDING=1 << 26) as site:
        clients = [StreamClient(site.port, "stall", receive_buffer=2048).open() for _ in range(3)]
        redis_server.wait_listeners(1, "stall")
        publisher = threading.Thread(target=publish_all, args=[redis_server, "stall", number])
        publisher.start()
        chance = random.Random(7)
        while any(len(client.events) < number for client in clients):
            # One reads for a while, and the others do not; but none for so long that it is cut off.
            client = min(clients, key=lambda client: len(client.events))
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


@pytest.mark.parametrize("worker", servers.WORKERS)
def test_no_byte_reaches_the_wrong_client(
    worker: str, shared_redis: RedisServer, start: Start
) -> None:
    """Clients of many channels come and go under load; each receives only its channel."""
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
        for _ in range(25):
            name = chance.choice(names)
            with StreamClient(port, name, receive_buffer=chance.choice([2048, None])).open() as one:
                # Those that go in the middle of what is being written to them, too.
                one.wait_events(chance.randrange(1, 40))
                numbers = [int(event.data.split()[1]) for event in one.events]
                assert {event.data.split()[0] for event in one.events} == {name}
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                heard.append(len(numbers))

    site = start(worker)
    loader = threading.Thread(target=load)
    loader.start()
    try:
        run_together([threading.Thread(target=visit, args=[n, site.port]) for n in range(8)])
    finally:
        done.set()
        loader.join()
    assert "Redis is unavailable" not in site.log()
    assert "Traceback" not in site.log()
    assert len(heard) == 8 * 25, "no visit has failed"


def run_together(threads: list[threading.Thread]) -> None:
    """Run threads and wait for them."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.long
@pytest.mark.parametrize("worker", servers.WORKERS)
def test_two_thousand_channels(worker: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """Each client has its own channel and gets its own event."""
    options = ("--worker-connections", "3000")
    with serve(tmp_path, shared_redis, worker, *options) as site:
        with ExitStack() as stack:
            clients: dict[str, StreamClient] = {}
            # All at once would be told to reconnect later by a server that is slow today.
            for first in range(0, 2000, 250):
                for name in (f"own-{n}" for n in range(first, first + 250)):
                    clients[name] = stack.enter_context(StreamClient(site.port, name))
                gather(list(clients.values()), lambda client: client.parser.comments > 0)
            pipeline = shared_redis.admin.pipeline(transaction=False)
            for name in clients:
                pipeline.publish(name, f'{{"data": "{name}"}}')
            assert set(pipeline.execute()) == {1}
            gather(list(clients.values()), lambda client: len(client.events) == 1)
            assert all(client.events[0].data == name for name, client in clients.items())
        wait_until(lambda: shared_redis.admin.pubsub_channels("own-*") == [], "unsubscribed")


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_a_keep_alive_connection_goes_on_after_a_stream(
    worker: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A rejected client may use its connection for another request."""
    redis_server.stop()
    with serve(tmp_path, redis_server, worker) as site, httpx.Client(timeout=PATIENCE) as client:
        base = f"http://{LOOPBACK}:{site.port}"
        assert client.get(base + "/stream").text.startswith("retry:")
        assert client.get(base + "/").text == "hello"


def test_what_a_slow_or_silent_peer_may_cost_is_bounded(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    """The kernel gives up on a peer that does not answer, and limits its send buffer."""
    with socket.create_connection((LOOPBACK, shared_redis.port)) as peer:
        sockets.bound_costs(peer)
        timeout = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert timeout == 30_000
        # Linux doubles what it is told, for its own bookkeeping (socket(7)).
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 << 17


def settled(site: Site) -> int:
    """Return how many descriptors the worker has, without those of requests that are ending."""
    return min(noted_with_pause(site) for _ in range(20))


def noted_with_pause(site: Site) -> int:
    """Return how many descriptors the worker has a little later."""
    threading.Event().wait(0.02)
    return int(site.worker().num_fds())


@pytest.mark.parametrize("worker", servers.WORKERS)
def test_a_stream_is_a_socket_and_nothing_else(worker: str, start: Start) -> None:
    """200 open streams hold one descriptor each, and no thread, request, environ or frame."""

    def alive() -> dict[str, int]:
        counts: dict[str, int] = json.loads(site.get("/alive"))
        return counts

    site = start(worker)
    with StreamClient(site.port, "held").open():
        alive()
        before, descriptors = alive(), settled(site)
        clients = [StreamClient(site.port, "held") for _ in range(200)]
        gather(clients, lambda client: client.parser.comments > 0)
        wait_until(
            lambda: all(number <= before[kind] + 5 for kind, number in alive().items()),
            "as many of each kind as before",
        )
        wait_until(lambda: settled(site) == descriptors + 200, "one descriptor each")
    for client in clients:
        client.close()
    wait_until(lambda: site.worker().num_fds() < descriptors, "all descriptors are returned")


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_what_a_client_sends_on_its_stream_is_ignored(
    worker: str, shared_redis: RedisServer, tmp_path: Path, channel: str
) -> None:
    """It is not answered, and its own stream and the others continue and end properly."""
    request = b"GET /publish?data=pipelined HTTP/1.1\r\nHost: x\r\n\r\n"
    with serve(tmp_path, shared_redis, worker) as site, ExitStack() as stack:
        clients = [stack.enter_context(StreamClient(site.port, channel).open()) for _ in range(4)]
        texts = [request, b"\0\xff\r\n" * 100, b"x" * (1 << 20), b""]
        for talker, text in zip(clients, texts, strict=True):
            talker.socket.setblocking(False)
            rest = text
            with contextlib.suppress(BlockingIOError):
                while rest:
                    rest = rest[talker.socket.send(rest) :]
        for number in range(20):
            publish(shared_redis, channel, number)
        for client in clients:
            events = client.wait_events(20)
            assert [event.data for event in events] == [str(number) for number in range(20)]
        assert site.get("/") == "hello"
        site.process.send(signal.SIGTERM)
        for client in clients:
            client.wait_end()
            assert client.complete


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_nginx_with_connections_that_it_keeps(
    worker: str, shared_redis: RedisServer, start: Start, tmp_path: Path
) -> None:
    """50 streams and requests in turn: none is answered from a connection that was taken over."""
    port = free_port()
    command = nginx(tmp_path, KEEPING.format(port=port, app=start(worker).port))
    with (
        running(command, port, tmp_path / "nginx.log"),
        httpx.Client(timeout=PATIENCE) as client,
    ):
        for number in range(50):
            with StreamClient(port, "kept").open() as stream:
                publish(shared_redis, "kept", number)
                assert stream.wait_events(1)[0].data == str(number)
                assert client.get(f"http://{LOOPBACK}:{port}/").text == "hello"
            shared_redis.wait_listeners(0, "kept")
    assert "upstream" not in (tmp_path / "nginx.log").read_text()


KEEPING: Final = """
upstream app {{ server 127.0.0.1:{app}; keepalive 16; }}
server {{
    listen 127.0.0.1:{port};
    location / {{
        proxy_pass http://app;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_buffering off;
        proxy_next_upstream off;
    }}
}}
"""


@pytest.mark.parametrize("worker", servers.MOST_USED)
@pytest.mark.parametrize("name", ["sentry", "opentelemetry"])
def test_tools_that_watch_requests(
    name: str, worker: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """A stream is right behind the middleware of sentry-sdk and of OpenTelemetry."""
    with serve(tmp_path, shared_redis, worker, app=f"tests.apps.watched:{name}") as site:
        with StreamClient(site.port, "watched").open() as client:
            for number in range(20):
                publish(shared_redis, "watched", number)
            events = client.wait_events(20)
            assert [event.data for event in events] == [str(number) for number in range(20)]
        assert "Traceback" not in site.log()


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_functions_given_to_call_on_close(
    worker: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """Each runs once, when the stream has ended, in a thread that streams don't depend on."""
    with serve(tmp_path, shared_redis, worker) as site, ExitStack() as stack:

        def open_stream(note: str) -> StreamClient:
            path = f"/stream?channel=closing&note={note}"
            return stack.enter_context(StreamClient(site.port, path=path).open())

        def closed(note: str) -> list[str]:
            return [line for line in site.log().splitlines() if f"closed {note} in" in line]

        goes, is_stopped = open_stream("goes"), open_stream("stopped")
        fails, slow = open_stream("fails&fail=1"), open_stream("slow&slow=1")
        publish(shared_redis, "closing")
        for client in (goes, is_stopped, fails, slow):
            client.wait_events(1)
        assert "closed" not in site.log()
        for client in (slow, fails, goes):
            client.close()
        for note in ("goes", "fails"):
            wait_until(partial(closed, note), "run")
        assert "ZeroDivisionError: of a function given to call_on_close" in site.log()
        assert not closed("slow")
        publish(shared_redis, "closing")
        is_stopped.wait_events(2)
        site.process.send(signal.SIGTERM)
        is_stopped.wait_end()
        assert is_stopped.complete
        wait_until(lambda: closed("stopped"), "run at the stop")
        site.process.wait()
        for note in ("goes", "fails", "stopped"):
            [line] = closed(note)
            assert "flask-sse-hub" not in line


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_descriptors_set_the_limit(worker: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """Views answer even if there are more clients than descriptors; the others reconnect."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        # The server inherits the limit that is set while it starts.
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
        try:
            # These are the requests at a time, which need descriptors beside the streams: at too
            # many of them gunicorn's threads end, and its greenlets log an error each.
            few = ("--worker-connections", "20")
            site = stack.enter_context(serve(tmp_path, shared_redis, worker, *few))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        clients = [StreamClient(site.port, "many") for _ in range(1000)]
        for client in clients:
            stack.enter_context(client)
        gather(clients, lambda client: client.parser.comments > 0 or client.complete)
        refused = [client for client in clients if client.complete]
        assert all(client.retry is not None for client in refused)
        assert 430 < len(clients) - len(refused) < 470
        assert site.get("/") == "hello"
        publish(shared_redis, "many")
        gather([c for c in clients if not c.complete], lambda client: client.events == [EVENT])
        assert "SSE_MAX_CLIENTS (by default" in site.log()
        assert "Traceback" not in site.log()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("worker", servers.WORKERS)
def test_twenty_thousand_visits(worker: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """No byte to the wrong client, and memory and descriptors are where they were."""
    names = [f"visit-{number}" for number in range(50)]
    done = threading.Event()

    def load() -> None:
        for number in itertools.count():
            pipeline = shared_redis.admin.pipeline(transaction=False)
            for name in names:
                pipeline.publish(name, json.dumps({"data": f"{name} {number} {'x' * 200}"}))
            pipeline.execute()
            if done.wait(0.02):
                return

    def visit(seed: int) -> int:
        chance = random.Random(seed)
        for _ in range(1000):
            name = chance.choice(names)
            buffer = chance.choice([2048, None])
            with StreamClient(site.port, name, receive_buffer=buffer).open() as one:
                one.wait_events(chance.choice([0, 0, 0, 1, 5]))
                assert {event.data.split()[0] for event in one.events} <= {name}
        return 1000

    with serve(tmp_path, shared_redis, worker) as site, ThreadPoolExecutor(5) as threads:
        process = site.worker()
        loader = threading.Thread(target=load)
        loader.start()
        try:
            assert sum(threads.map(visit, range(5))) == 5000
            wait_until(lambda: shared_redis.admin.pubsub_channels("visit-*") == [], "all left")
            memory, descriptors = process.memory_info().rss, process.num_fds()
            assert sum(threads.map(visit, range(5, 20))) == 15_000
        finally:
            done.set()
            loader.join()
        wait_until(lambda: shared_redis.admin.pubsub_channels("visit-*") == [], "all left")
        wait_until(lambda: process.num_fds() <= descriptors, "all descriptors are returned")
        assert process.memory_info().rss - memory < 15_000 * 256, "less than 256 bytes for each"
        assert "Traceback" not in site.log()


def test_a_large_event_costs_its_size_once(redis_server: RedisServer, tmp_path: Path) -> None:
    """100 clients that do not read share the bytes of an event that is larger than the limit."""
    size = 8_000_000
    with (
        serve(tmp_path, redis_server, "sync", SSE_MAX_PENDING=1 << 20) as site,
        ExitStack() as stack,
    ):
        for _ in range(100):
            client = StreamClient(site.port, "large", receive_buffer=4096)
            stack.enter_context(client).open()
        reader = stack.enter_context(StreamClient(site.port, "large").open())
        before = site.worker().memory_info().rss
        redis_server.admin.publish("large", json.dumps({"data": "x" * size}))
        [event] = reader.wait_events(1)
        assert len(event.data) == size
        # Some of the bytes are in several forms while they are decoded and encoded.
        assert site.worker().memory_info().rss - before < 10 * size


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2.0"])
def test_a_client_cannot_switch_its_protection_off(
    protocol: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """A client that does not read is disconnected, with any HTTP version."""
    with (
        serve(tmp_path, shared_redis, "gevent", SSE_DIRECT=False, SSE_MAX_PENDING=100_000) as site,
        socket.create_connection((LOOPBACK, site.port), PATIENCE) as liar,
    ):
        liar.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = f"GET /stream?channel=lies {protocol}\r\nHost: x\r\nVersion: 2\r\n\r\n"
        liar.sendall(request.encode())
        if protocol == "HTTP/2.0":
            # gunicorn itself refuses a version that it does not speak on this connection.
            assert b" 200 " not in liar.recv(100)
            return
        assert b" 200 " in liar.recv(100)
        shared_redis.wait_listeners(1, "lies")
        for _ in range(100):
            shared_redis.admin.publish("lies", json.dumps({"data": "x" * 10_000}))
        wait_until(lambda: "SSE_MAX_PENDING" in site.log(), "disconnected")
        shared_redis.wait_listeners(0, "lies")
