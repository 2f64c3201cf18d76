"""Streams under each of gunicorn's workers, handed over or read by the server."""

import itertools
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.gathering import gather
from tests.support.processes import wait_gone
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until

AT_ONCE: Final = ("SIGINT", "SIGQUIT")


@pytest.fixture(scope="module", params=[*servers.MOST_USED, "read"])
def site(
    request: pytest.FixtureRequest,
    shared_redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Return the site under each worker, and under one that reads the streams."""
    is_read = request.param == "read"
    worker = "gevent" if is_read else request.param
    settings = {
        "REDIS_URL": shared_redis.url,
        "SSE_DIRECT": not is_read,
        "SSE_MAX_PENDING": 100_000,
    }
    folder = tmp_path_factory.mktemp("gunicorn")
    with servers.gunicorn(folder, *servers.WORKERS[worker], settings=settings) as site:
        yield site


def test_two_hundred_clients_on_three_channels(site: Site, shared_redis: RedisServer) -> None:
    """Each client gets exactly its channel's events, in order, over one connection."""
    before = shared_redis.pubsub_connections()
    channels = ["red", "green", "blue"]
    clients: list[tuple[str, StreamClient]] = []
    # The first three subscribe to the channels. The others then need no answer from Redis: a very
    # busy process might receive it too late.
    for number in (3, 197):
        named = zip(itertools.cycle(channels), range(number), strict=False)
        clients += [(channel, StreamClient(site.port, channel)) for channel, _ in named]
        gather([client for _, client in clients], lambda client: client.parser.comments > 0)
    assert shared_redis.pubsub_connections() == before + 1
    for number, channel in itertools.product(range(100), channels):
        shared_redis.admin.publish(channel, f'{{"data": "{channel} {number}"}}')
    gather([client for _, client in clients], lambda client: len(client.events) >= 100)
    for channel, client in clients:
        assert [event.data for event in client.events] == [f"{channel} {n}" for n in range(100)]
        client.close()
    for channel in channels:
        shared_redis.wait_listeners(0, channel)


def test_nothing_is_missed_after_the_first_byte(site: Site, shared_redis: RedisServer) -> None:
    """A client whose stream is open misses nothing, even if many others come and go."""
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            StreamClient(site.port, "churned").open().close()

    churners = [threading.Thread(target=churn) for _ in range(3)]
    for churner in churners:
        churner.start()
    try:
        for number in range(100):
            with StreamClient(site.port, "churned").open() as client:
                assert shared_redis.admin.publish("churned", f'{{"data": "{number}"}}') == 1
                assert client.wait_events(1)[0].data == str(number)
    finally:
        done.set()
        for churner in churners:
            churner.join()


def test_a_client_that_never_reads_is_cut_off(site: Site, shared_redis: RedisServer) -> None:
    """More than `SSE_MAX_PENDING` waiting bytes end a stream; the others continue without a gap."""
    data = "x" * 10_000
    with (
        StreamClient(site.port, "slow", receive_buffer=4096) as deaf,
        StreamClient(site.port, "slow") as reader,
    ):
        deaf.open()
        reader.open()
        for number in range(100):
            shared_redis.admin.publish("slow", f'{{"data": "{number} {data}"}}')
            reader.wait_events(number + 1)
        assert [event.data.split()[0] for event in reader.events] == [str(n) for n in range(100)]
        wait_until(lambda: "SSE_MAX_PENDING" in site.log(), "cut off")
        deaf.wait_end()
        assert not deaf.complete
        assert len(deaf.events) < 100
        assert [event.data.split()[0] for event in deaf.events] == [
            str(n) for n in range(len(deaf.events))
        ]
    assert site.log().count("is disconnected: more than") == 1


def test_half_a_connection_is_no_stream(site: Site, shared_redis: RedisServer) -> None:
    """A client that closes its own side has gone: its stream ends properly."""
    with StreamClient(site.port, "half").open() as client:
        client.socket.shutdown(socket.SHUT_WR)
        client.wait_end()
        assert client.complete
    shared_redis.wait_listeners(0, "half")


@pytest.mark.long
def test_clients_that_have_gone_cost_nothing(site: Site, shared_redis: RedisServer) -> None:
    """Streams that have ended leave no descriptor and no memory behind."""
    worker = site.worker()

    def come_and_go() -> None:
        clients = [StreamClient(site.port, f"leak-{number}") for number in range(300)]
        gather(clients, lambda client: client.parser.comments > 0)
        for client in clients:
            client.close()
        wait_until(lambda: shared_redis.admin.pubsub_channels("leak-*") == [], "unsubscribed")
        wait_until(lambda: worker.num_fds() < 100, "gunicorn has closed its connections as well")

    come_and_go()
    come_and_go()
    wait_until(lambda: "flask-sse" not in site.get("/threads"), "idle")
    descriptors = worker.num_fds()
    come_and_go()
    memory = worker.memory_info().rss
    for _ in range(4):
        come_and_go()
    wait_until(lambda: "flask-sse" not in site.get("/threads"), "idle")
    wait_until(lambda: worker.num_fds() <= descriptors, "descriptors returned")
    assert worker.memory_info().rss - memory < 1200 * 2048, "less than 2 KiB for each of them"


@pytest.mark.parametrize(
    "how", ["SIGTERM", "SIGHUP", *(pytest.param(how, marks=pytest.mark.long) for how in AT_ONCE)]
)
@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_a_stop_ends_each_stream(
    how: str, worker: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """Each of 200 streams ends with its final chunk, long before the server's own timeout."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_RETRY": 100}
    with servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings) as site:
        old = site.worker()
        clients = [StreamClient(site.port, f"stop-{number % 5}") for number in range(200)]
        gather(clients, lambda client: client.parser.comments > 0 or client.retry is not None)
        site.process.send(signal.Signals[how])
        gather(clients, lambda client: client.complete)
        wait_gone(old)
        for client in clients:
            assert client.socket.recv(1) == b"", "FIN"
            client.close()
        if how == "SIGHUP":
            assert site.worker() != old
            with StreamClient(site.port).open():
                pass
        # gunicorn logs a request that it cuts at once; its older versions log each stop.
        quiet = how not in AT_ONCE and "http_protocols" in servers.GUNICORN_SETTINGS
        words = ("Traceback", "ERROR", "timeout") if quiet else ("timeout",)
        assert not any(word in site.log() for word in words)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    "worker",
    [
        "gthread",
        *(pytest.param(worker, marks=pytest.mark.long) for worker in ("gevent", "gevent_pywsgi")),
    ],
)
def test_a_stop_ends_each_stream_that_is_read(
    how: str, worker: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """The same is true for streams that the server reads."""
    options = ("--worker-class", worker, "--threads", "60")
    settings = {"REDIS_URL": shared_redis.url, "SSE_DIRECT": False}
    with servers.gunicorn(tmp_path, *options, settings=settings) as site:
        old = site.worker()
        clients = [StreamClient(site.port, f"stop-{number % 5}") for number in range(50)]
        gather(clients, lambda client: client.parser.comments > 0)
        site.process.send(signal.Signals[how])
        gather(clients, lambda client: client.complete)
        wait_gone(old)
        for client in clients:
            client.close()


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_a_stop_while_redis_is_frozen(
    worker: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Streams end cleanly even if the hub waits for a Redis that does nothing."""
    settings = {"REDIS_URL": redis_server.url}
    with servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings) as site:
        old = site.worker()
        clients = [StreamClient(site.port).open() for _ in range(5)]
        redis_server.kill_pubsub()
        redis_server.freeze()
        wait_until(lambda: "Redis is unavailable" in site.log(), "noticed")
        site.process.send(signal.SIGTERM)
        gather(clients, lambda client: client.complete)
        wait_gone(old)
        for client in clients:
            client.close()


@pytest.mark.parametrize("worker", servers.MOST_USED)
@pytest.mark.parametrize("direct", [True, False], ids=["handed-over", "read"])
def test_a_stop_does_not_wait_for_a_client_that_does_not_read(
    worker: str, direct: bool, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """A client that has stopped reading delays a worker by no more than the grace second."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_DIRECT": direct}
    with servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings) as site:
        old = site.worker()
        with StreamClient(site.port, "stuck", receive_buffer=4096).open():
            for _ in range(50):
                shared_redis.admin.publish("stuck", f'{{"data": "{"x" * 10_000}"}}')
            site.process.send(signal.SIGTERM)
            wait_gone(old)


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_a_stop_sends_what_waits(worker: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """A client that lags but continues to read gets everything, and then the end."""
    settings = {"REDIS_URL": shared_redis.url}
    with (
        servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings) as site,
        StreamClient(site.port, "lags", receive_buffer=4096).open() as client,
        StreamClient(site.port, "lags").open() as quick,
    ):
        for number in range(80):
            shared_redis.admin.publish("lags", f'{{"data": "{number} {"x" * 10_000}"}}')
        quick.wait_events(80)
        site.process.send(signal.SIGTERM)
        client.wait_end()
        assert client.complete
        assert [event.data.split()[0] for event in client.events] == [str(n) for n in range(80)]


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_a_reload_of_changed_code(worker: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """With `--reload` a changed file ends the streams properly, and the new worker serves."""
    app = tmp_path / "reloaded.py"
    app.write_text("from tests.apps.site import app\n")
    options = (*servers.WORKERS[worker], "--reload", "--pythonpath", f"{tmp_path},{servers.ROOT}")
    settings = {"REDIS_URL": shared_redis.url}
    with servers.gunicorn(tmp_path, *options, app="reloaded:app", settings=settings) as site:
        old = site.worker()
        with StreamClient(site.port).open() as client:

            def ended() -> bool:
                # gunicorn does not see a change before its first look at the files.
                app.touch()
                client.socket.settimeout(0.5)
                client.receive()
                return client.ended

            wait_until(ended, "the change is noticed")
            assert client.complete
        wait_gone(old)
        with StreamClient(site.port).open():
            assert site.publish("to a new one") == 1


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_a_stop_ends_messages(worker: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """A loop over `messages` in a thread of the worker ends when the worker does."""
    options = ("--worker-class", worker, "--threads", "4")
    settings = {"REDIS_URL": shared_redis.url, "SSE_DIRECT": False}
    with servers.gunicorn(tmp_path, *options, settings=settings) as site:
        # A stream keeps the worker until it has ended, as the thread alone would not.
        with StreamClient(site.port, "listen").open() as client:
            assert site.get("/listen?channel=heard") == "listening"
            shared_redis.wait_listeners(1, "heard")
            site.publish("hello", "heard")
            wait_until(lambda: "heard hello" in site.log(), "heard")
            site.process.send(signal.SIGTERM)
            client.wait_end()
        wait_until(lambda: "listened to the end" in site.log(), "ended")


@pytest.mark.long
@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_max_requests_ends_the_streams(
    worker: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """A worker that has served its number of requests is replaced, even with open streams."""
    options = (*servers.WORKERS[worker], "--max-requests", "3")
    settings = {"REDIS_URL": shared_redis.url}
    with servers.gunicorn(tmp_path, *options, settings=settings) as site:
        old = site.worker()
        with StreamClient(site.port).open() as client:
            site.get("/")
            site.get("/")
            client.wait_end()
            assert client.complete
        wait_gone(old)
        assert site.worker() != old
        with StreamClient(site.port).open():
            pass


@pytest.mark.long
def test_keepalive_comments_are_spread(shared_redis: RedisServer, tmp_path: Path) -> None:
    """After an event to all clients, their comments do not all come at the same time."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_KEEPALIVE": 8}
    with servers.gunicorn(tmp_path, settings=settings) as site:
        clients = [StreamClient(site.port, "spread") for _ in range(50)]
        gather(clients, lambda client: client.parser.comments == 1)
        shared_redis.admin.publish("spread", '{"data": "x"}')
        gather(clients, lambda client: len(client.events) == 1)
        # There is a time at which some have theirs, and others not yet.
        wait_until(lambda: sum(noted(client) for client in clients), "some have it")
        assert not all(client.parser.comments > 1 for client in clients)
        gather(clients, lambda client: client.parser.comments > 1)
        for client in clients:
            client.close()


def noted(client: StreamClient) -> bool:
    """Read what has arrived, and say whether there was a comment."""
    client.socket.settimeout(0.001)
    client.receive()
    return client.parser.comments > 1
