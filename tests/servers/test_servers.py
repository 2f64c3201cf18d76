"""Streams under each server, as processes of their own."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import behavior, servers
from tests.support.behavior import Server
from tests.support.client import StreamClient
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until

BLOCKED = "this server handles one request at a time"
OCCUPIED = "open event streams occupy all threads that this process has for requests"
BROKEN_PIPE = re.compile(
    r"^Traceback .*\n(?: .*\n)+(?:BrokenPipeError|ConnectionResetError): .*$", re.MULTILINE
)
# What Hypercorn logs, after a line of its own, for the response to HEAD.
EMPTY_BODY = re.compile(
    r"^.*\[ERROR\] Error in ASGI Framework\nTraceback .*\n(?: .*\n)+.*UnexpectedMessageError: .*$",
    re.MULTILINE,
)

# Not those that do nothing beside a stream.
SERVERS = [server for server in behavior.SERVERS if not server.one_at_a_time]
# gunicorn 26 has this worker no more.
if find_spec("gunicorn.workers.geventlet"):
    SERVERS.append(behavior.GUNICORN_EVENTLET)


@pytest.fixture(scope="module", params=behavior.as_params(SERVERS))
def server(request: pytest.FixtureRequest) -> Server:
    """Return each of the servers."""
    server: Server = request.param
    return server


@pytest.fixture(scope="module")
def site(
    server: Server, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Return the site under each of the servers."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_KEEPALIVE": 0.5}
    with server.serve(tmp_path_factory.mktemp("server"), settings=settings) as site:
        yield site


def test_first_bytes_come_without_an_event(site: Site) -> None:
    """Headers and first bytes arrive at once."""
    with StreamClient(site.port).open() as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"


def test_a_second_request_is_served_beside_a_stream(site: Site) -> None:
    """The server continues to serve others, and their events reach the stream."""
    with StreamClient(site.port, "beside").open() as stream:
        assert site.get("/") == "hello"
        assert site.publish("héllo\nwörld", "beside") == 1
        assert [event.data for event in stream.wait_events(1)] == ["héllo\nwörld"]


def test_a_reader_that_stalls_gets_everything(site: Site, shared_redis: RedisServer) -> None:
    """Data that its socket does not accept at once is sent later, in order."""
    with StreamClient(site.port, "stall", receive_buffer=4096).open() as stream:
        for number in range(20):
            data = f'{{"data": "{number} {"x" * 50_000}"}}'
            assert shared_redis.admin.publish("stall", data) == 1
        events = stream.wait_events(20)
        assert [event.data.split()[0] for event in events] == [str(n) for n in range(20)]


def test_comments_keep_a_silent_stream_alive(site: Site) -> None:
    """Comments are sent again and again, even if nothing is published."""
    with StreamClient(site.port, "silent").open() as stream:
        stream.wait_comments(4)
        assert stream.events == []


def test_http_1_0(site: Site) -> None:
    """A client of HTTP/1.0 gets the bare stream."""
    with StreamClient(site.port, "old", version="1.0").open() as stream:
        site.publish("x", "old")
        site.publish("y", "old")
        assert [event.data for event in stream.wait_events(2)] == ["x", "y"]


def test_head(server: Server, site: Site, shared_redis: RedisServer) -> None:
    """HEAD returns only headers, and does not subscribe."""
    with StreamClient(site.port, "head", method="HEAD", headers="Connection: close\r\n") as stream:
        stream.read_headers()
        assert stream.status == (500 if server.fails_on_empty_bodies else 200)
        if server.fails_on_empty_bodies:
            return
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        body = stream.read_rest()
        assert body == (b"0\r\n\r\n" if server.ends_head_with_a_chunk else b"")
    assert shared_redis.listeners("head") == 0


def test_a_client_that_has_gone_is_let_go(site: Site, shared_redis: RedisServer) -> None:
    """The subscription of a client that has left ends even if nothing is published."""
    with StreamClient(site.port, "gone").open():
        assert shared_redis.listeners("gone") == 1
    shared_redis.wait_listeners(0, "gone")


def test_clients_that_come_and_go_leave_the_site_alive(
    site: Site, shared_redis: RedisServer
) -> None:
    """Five clients, as many as there are threads, leave none of them occupied."""
    for number in range(5):
        with StreamClient(site.port, f"visit-{number}").open() as client:
            shared_redis.admin.publish(f"visit-{number}", '{"data": "x"}')
            client.wait_events(1)
    for number in range(5):
        shared_redis.wait_listeners(0, f"visit-{number}")
    assert site.get("/") == "hello"


def test_teardown_functions_run_when_the_view_returns(site: Site) -> None:
    """Contexts are torn down while the stream continues."""
    before = site.get("/torn-down").count("/stream")
    with StreamClient(site.port, "teardown").open():
        wait_until(lambda: site.get("/torn-down").count("/stream") == before + 1, "torn down")


def test_the_hubs_loop_ends_with_the_last_stream(site: Site) -> None:
    """Once there are no listeners, none of our threads is left."""
    wait_until(lambda: "flask-sse" not in site.get("/threads"), "no thread of ours")
    with StreamClient(site.port, "thread").open():
        assert "flask-sse-hub" in site.get("/threads")


def test_nothing_was_logged(server: Server, site: Site) -> None:
    """Clients that come and go leave no tracebacks in the log."""
    log = site.log()
    if server.logs_broken_pipes:
        log = BROKEN_PIPE.sub("", log)
    if server.fails_on_empty_bodies:
        log = EMPTY_BODY.sub("", log)
    for word in ("Traceback", "ERROR", "CRITICAL"):
        assert word not in log
    assert BLOCKED not in log


def test_streams_in_all_threads(server: Server, site: Site) -> None:
    """A warning says once that they occupy all of them; elsewhere the site goes on."""
    with ExitStack() as stack:
        for number in range(server.threads or 12):
            stack.enter_context(StreamClient(site.port, f"all-{number}").open())
        if server.threads is None:
            assert site.get("/") == "hello"
            assert OCCUPIED not in site.log()
        else:
            warning = f"{OCCUPIED} ({server.threads})"
            wait_until(lambda: warning in site.log(), "a warning")
            assert site.log().count(OCCUPIED) == 1


@pytest.mark.parametrize(
    "name",
    [
        "flask --without-threads",
        "wsgiref",
        "uwsgi",
        pytest.param("bjoern", marks=pytest.mark.long),
    ],
)
def test_a_server_that_a_stream_blocks(
    name: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """The log says so, once, when a stream is first waited for."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_KEEPALIVE": 0.5}
    with servers.other(name)(tmp_path, settings=settings) as site:
        with StreamClient(site.port, method="HEAD", headers="Connection: close\r\n") as client:
            client.read_headers()
        assert site.get("/") == "hello"
        assert BLOCKED not in site.log()
        for number in range(2):
            with StreamClient(site.port, f"blocking-{number}").open() as client:
                client.wait_comments(3)
        assert site.get("/") == "hello"
        assert site.log().count(BLOCKED) == 1


def test_a_server_with_threads_that_does_not_say_so(
    shared_redis: RedisServer, tmp_path: Path
) -> None:
    """The server of wsgiref says for each request that it serves no other at the same time."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_KEEPALIVE": 0.5}
    with servers.other("wsgiref, threading")(tmp_path, settings=settings) as site:
        with StreamClient(site.port, "threading").open() as client:
            client.wait_comments(3)
            assert site.get("/") == "hello"
        assert BLOCKED not in site.log()


def test_several_workers(shared_redis: RedisServer, tmp_path: Path) -> None:
    """Each worker has one subscription, and an event reaches the clients of all."""
    options = ("--worker-class", "gevent", "--workers", "2", "--preload")
    settings = {"REDIS_URL": shared_redis.url}
    with servers.gunicorn(tmp_path, *options, settings=settings) as site, ExitStack() as stack:
        streams: list[StreamClient] = []

        def both_serve() -> bool:
            streams.append(stack.enter_context(StreamClient(site.port, "workers").open()))
            return shared_redis.listeners("workers") == 2

        wait_until(both_serve, "a stream at each of the two workers")
        assert site.publish("x", "workers") == 2
        for stream in streams:
            assert [event.data for event in stream.wait_events(1)] == ["x"]


def test_memory_refuses_several_workers(tmp_path: Path) -> None:
    """The embedded Redis works in one process, and several workers get an error."""
    options = ("--worker-class", "gevent", "--workers", "2")
    settings = {"REDIS_URL": "memory://"}
    with servers.gunicorn(tmp_path, *options, settings=settings) as site:
        with StreamClient(site.port).read_headers() as stream:
            assert stream.status == 500
        assert "memory:// works in one process only" in site.log()


@pytest.mark.parametrize("name", ["uvicorn", pytest.param("hypercorn", marks=pytest.mark.long)])
def test_memory_in_the_only_process(name: str, tmp_path: Path) -> None:
    """It serves streams there, though a2wsgi always says that there are several."""
    with servers.other(name)(tmp_path, settings={"REDIS_URL": "memory://"}) as site:
        with StreamClient(site.port).open() as stream:
            assert site.publish("x") == 1
            assert [event.data for event in stream.wait_events(1)] == ["x"]
        assert "memory://" not in site.log()


def test_memory_in_one_of_several_processes(tmp_path: Path) -> None:
    """It is noticed when a second one begins, though Granian never says that there are several."""
    settings = {"REDIS_URL": "memory://", "SSE_KEEPALIVE": 0.5}
    with servers.other("granian --workers")(tmp_path, settings=settings) as site:

        def has_warned() -> bool:
            with StreamClient(site.port).open():
                return "another process of this server uses it" in site.log()

        wait_until(has_warned, "a warning", 30)
        assert site.log().count("memory://") == 1


@pytest.mark.parametrize(
    ("options", "threads"),
    [(("--threads", "2"), 2), (("--workers", "2"), 1)],
    ids=["gthread", "sync"],
)
def test_gunicorns_threads(
    options: tuple[str, ...], threads: int, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """If streams are not handed over, the warning says how gunicorn gets more threads."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_DIRECT": False}
    with servers.gunicorn(tmp_path, *options, settings=settings) as site, ExitStack() as stack:
        for number in range(threads):
            assert OCCUPIED not in site.log()
            stack.enter_context(StreamClient(site.port, f"thread-{number}").open())
        wait_until(lambda: f"{OCCUPIED} ({threads})" in site.log(), "a warning")
        assert "start gunicorn with more threads" in site.log()
