"""History on a real Redis and under gunicorn: all faults, and a check of numbered events."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest
from flask import Flask

from flask_sse import history, sse
from tests.support import servers
from tests.support.client import StreamClient
from tests.support.clock import Clock
from tests.support.following import FollowingClient, Publisher, check
from tests.support.forgetful_proxy import ForgetfulProxy
from tests.support.gathering import gather
from tests.support.parser import Event
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import PATIENCE, wait_until

MakeApp = Callable[..., Flask]
SETTINGS: Final = {"SSE_HISTORY": 100_000, "SSE_RETRY": 100, "SSE_KEEPALIVE": 1}
TWO_HOURS: Final = 7200


@pytest.fixture(params=["gevent", pytest.param("sync", marks=pytest.mark.long)])
def worker(request: pytest.FixtureRequest) -> str:
    """Return a kind of gunicorn's workers."""
    return str(request.param)


@pytest.fixture
def site(worker: str, redis_server: RedisServer, tmp_path: Path) -> Iterator[Site]:
    """Return a site with a Redis of its own, and history."""
    settings = {"REDIS_URL": redis_server.url, **SETTINGS}
    with servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings) as site:
        yield site


@pytest.fixture
def app(make_app: MakeApp, redis_server: RedisServer) -> Flask:
    """Return the application that publishes."""
    return make_app(REDIS_URL=redis_server.url, **SETTINGS)


def test_clients_that_lose_their_connections(site: Site, app: Flask) -> None:
    """Although connections are cut again and again under load, each client has every event once."""
    with FollowingClient(site.port, "x") as first, FollowingClient(site.port, "x") as second:
        with Publisher(app, "x") as publisher:
            for _ in range(20):
                publisher.wait(20)
                first.cut()
                publisher.wait(20)
                second.cut()
            last = publisher.stop()
        for client in (first, second):
            client.wait_position(app)
            check(client.events)
            assert client.numbers() == [*range(last + 1)]
            assert client.connections > 10
            assert not client.resets()


def test_a_client_that_gets_nothing_and_returns(site: Site, app: Flask) -> None:
    """Events published while a client was away arrive, even if it had received no event before."""
    with StreamClient(site.port, "x").open() as client:
        [first] = client.wait_events(1)
    with app.app_context():
        sse.publish(0, channel="x")
    with StreamClient(site.port, "x", headers=f"Last-Event-ID: {first.id}\r\n").open() as client:
        assert [event.data for event in client.wait_events(2)][1] == "0"


def test_kills_of_the_subscription(site: Site, app: Flask, redis_server: RedisServer) -> None:
    """`CLIENT KILL TYPE pubsub` every 50 ms under load costs no event."""
    with FollowingClient(site.port, "x") as client, Publisher(app, "x") as publisher:
        for _ in range(40):
            redis_server.kill_pubsub()
            time.sleep(0.05)
        last = publisher.stop()
        client.wait_position(app)
        check(client.events)
        assert client.numbers() == [*range(last + 1)]
        assert not client.resets()


def test_kills_of_all_connections(site: Site, app: Flask, redis_server: RedisServer) -> None:
    """An answer that is lost is asked for again, and no event comes twice."""
    with FollowingClient(site.port, "x") as client, Publisher(app, "x", 0) as publisher:
        for _ in range(40):
            redis_server.admin.client_kill_filter(_type="normal", skipme=True)
            redis_server.admin.client_kill_filter(_type="pubsub")
            time.sleep(0.05)
        last = publisher.stop()
        # On a busy machine both connections of one event may be killed.
        assert len(publisher.failures) < 5
        client.wait_position(app)
        check(client.events, publisher.failures)
        numbers = client.numbers()
        assert numbers == sorted({*numbers})
        assert {*range(last + 1)} - {*numbers} <= {*publisher.failures}


def test_the_subscriber_is_too_slow_for_redis(
    site: Site, app: Flask, redis_server: RedisServer
) -> None:
    """A subscription that Redis cuts, because its output buffer is full, costs no event."""
    redis_server.admin.config_set("client-output-buffer-limit", "pubsub 65536 65536 0")
    with FollowingClient(site.port, "x") as client:
        worker = site.worker()
        worker.suspend()
        number = 0
        with app.app_context():
            for number in range(2000):
                # It parses as a number.
                sse.publish(f"{number:50000}", channel="x")
                if not redis_server.pubsub_connections():
                    break
        assert not redis_server.pubsub_connections(), "cut"
        worker.resume()
        client.wait_position(app)
        check(client.events)
        assert client.numbers() == [*range(number + 1)]


def test_redis_is_restarted_without_its_data(
    site: Site, app: Flask, redis_server: RedisServer
) -> None:
    """All clients are told so, once, and go on."""
    with FollowingClient(site.port, "x") as client, Publisher(app, "x") as publisher:
        publisher.wait(50)
        redis_server.stop()
        redis_server.start()
        publisher.wait(50)
        publisher.stop()
        client.wait_position(app)
        check(client.events, publisher.failures)
        assert client.resets() == 1
    assert "told that they may have missed events" in site.log()


def test_redis_is_restarted_with_its_data(
    site: Site, app: Flask, redis_server: RedisServer
) -> None:
    """With persistence the clients have everything, without a reset."""
    redis_server.options.update(appendonly="yes", appendfsync="always")
    redis_server.stop()
    redis_server.start()
    with FollowingClient(site.port, "x") as client, Publisher(app, "x") as publisher:
        for _ in range(3):
            publisher.wait(50)
            redis_server.stop()
            redis_server.start()
        publisher.wait(50)
        publisher.stop()
        client.wait_position(app)
        check(client.events, publisher.failures)
        assert not client.resets()


def test_redis_comes_back_older(site: Site, app: Flask, redis_server: RedisServer) -> None:
    """From an earlier snapshot Redis issues the same offsets again, and all clients are told."""
    with (
        FollowingClient(site.port, "x") as live,
        FollowingClient(site.port, "x") as away,
        Publisher(app, "x") as publisher,
    ):
        publisher.wait(50)
        redis_server.admin.save()
        publisher.wait(50)
        redis_server.crash()
        away.cut()
        redis_server.start()
        publisher.wait(150)
        publisher.stop()
        for client in (live, away):
            client.wait_position(app)
            check(client.events, publisher.failures)
            assert client.resets() == 1


def test_flushall(site: Site, app: Flask, redis_server: RedisServer) -> None:
    """A log that is lost while everything is connected is noticed with the next event."""
    with FollowingClient(site.port, "x") as client, Publisher(app, "x") as publisher:
        publisher.wait(50)
        redis_server.admin.flushall()
        publisher.wait(50)
        publisher.stop()
        client.wait_position(app)
        check(client.events)
        assert client.resets() == 1


@pytest.mark.long
def test_a_lost_tail(site: Site, app: Flask, redis_server: RedisServer) -> None:
    """A lost log without new events is noticed after a while."""
    with FollowingClient(site.port, "x") as client:
        with app.app_context():
            sse.publish(0, channel="x")
        client.wait_number(0)
        redis_server.admin.flushall()
        wait_until(client.resets, "the client is told")


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.long)])
def test_redis_is_frozen(site: Site, app: Flask, redis_server: RedisServer, seconds: float) -> None:
    """While Redis does not answer, the streams stay open, and afterwards nothing is missing."""
    with FollowingClient(site.port, "x") as client, Publisher(app, "x") as publisher:
        publisher.wait(50)
        redis_server.freeze()
        time.sleep(seconds)
        redis_server.thaw()
        publisher.wait(50)
        publisher.stop()
        client.wait_position(app)
        check(client.events, publisher.failures)
        assert not client.resets()


@pytest.mark.long
def test_workers_that_are_killed_and_replaced(site: Site, app: Flask) -> None:
    """`kill -9` of the worker and `SIGHUP` under load cost no event."""
    with FollowingClient(site.port, "x") as client, Publisher(app, "x") as publisher:
        for number in range(4):
            publisher.wait(50)
            worker = site.worker()
            if number % 2:
                worker.kill()
            else:
                site.process.send(signal.SIGHUP)
            client.wait_connections(number + 2)
        publisher.wait(50)
        last = publisher.stop()
        client.wait_position(app)
        check(client.events)
        assert client.numbers() == [*range(last + 1)]


def test_a_client_that_does_not_read(
    worker: str, make_app: MakeApp, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """It lags by more than the limit, stays connected, costs no memory, and catches up."""
    settings = {"REDIS_URL": shared_redis.url, **SETTINGS, "SSE_MAX_PENDING": 100_000}
    channel = f"lagging-{worker}"
    app = make_app(**settings)
    text = "x" * 10_000
    with (
        servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings) as site,
        StreamClient(site.port, channel, receive_buffer=4096).open() as slow,
        StreamClient(site.port, channel).open() as quick,
        app.app_context(),
    ):
        before = site.worker().memory_info().rss
        for number in range(800):
            sse.publish(f"{number} {text}", channel=channel)
            if number % 10 == 9:
                quick.wait_events(number + 2)
        assert site.worker().memory_info().rss - before < 6_000_000
        for client in (quick, slow):
            events = client.wait_events(801, 60)[1:]
            assert [int(event.data.split()[0]) for event in events] == [*range(800)]
        sse.publish("800 live", channel=channel)
        assert slow.wait_events(802)[-1].data == "800 live"
    assert "SSE_MAX_PENDING" not in site.log()


@pytest.mark.parametrize(
    "resumes", [False, pytest.param(True, marks=pytest.mark.long)], ids=["live", "resuming"]
)
def test_a_log_that_is_trimmed_under_a_client(
    worker: str, make_app: MakeApp, shared_redis: RedisServer, tmp_path: Path, resumes: bool
) -> None:
    """A client that lags by more than the log is told so, and continues at the newest position."""
    settings = {"REDIS_URL": shared_redis.url, **SETTINGS, "SSE_HISTORY": 100}
    channel = f"trimmed-{worker}-{resumes}"
    app = make_app(**settings)
    text = "x" * 10_000
    with (
        servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings) as site,
        app.app_context(),
        ExitStack() as stack,
    ):
        headers = f"Last-Event-ID: {history.position(channel)}\r\n" if resumes else ""
        for number in range(-50 if resumes else 0, 0):
            sse.publish(f"{number} {text}", channel=channel)
        slow = stack.enter_context(
            StreamClient(site.port, channel, receive_buffer=4096, headers=headers).open()
        )
        for number in range(1000):
            sse.publish(f"{number} {text}", channel=channel)
        done = "sse.reset"
        while done not in [event.type for event in slow.events]:
            slow.wait_events(len(slow.events) + 1)
        received = [int(e.data.split()[0]) for e in slow.events if e.type == "message"]
        first = -50 if resumes else 0
        assert 0 < len(received) < 1000
        assert received == [*range(first, first + len(received))]
        sse.publish("1000 live", channel=channel)
        while not slow.events[-1].data.startswith("1000"):
            slow.wait_events(len(slow.events) + 1)
        assert [event.type for event in slow.events].count("sse.reset") == 1


def test_all_clients_come_back_at_once(
    worker: str, make_app: MakeApp, redis_server: RedisServer, tmp_path: Path
) -> None:
    """200 clients at different positions are live again soon, and the log is read a few times."""
    _storm(worker, make_app, redis_server, tmp_path, 200)


@pytest.mark.long
def test_a_reconnect_storm(
    worker: str, make_app: MakeApp, redis_server: RedisServer, tmp_path: Path
) -> None:
    """The same is true for 2,000 clients."""
    _storm(worker, make_app, redis_server, tmp_path, 2000)


def _storm(
    worker: str, make_app: MakeApp, redis_server: RedisServer, tmp_path: Path, number: int
) -> None:
    settings = {"REDIS_URL": redis_server.url, **SETTINGS}
    app = make_app(**settings)
    with (
        servers.gunicorn(
            tmp_path, *servers.WORKERS[worker], "--backlog", "4096", settings=settings
        ) as site,
        app.app_context(),
        ExitStack() as stack,
    ):
        positions = []
        for published in range(100):
            positions.append(history.position("x"))
            sse.publish(published, channel="x")
        # Clients that all connect to a process without a Redis connection may be told to reconnect.
        stack.enter_context(StreamClient(site.port, "x")).open()
        redis_server.admin.config_resetstat()
        begin = time.monotonic()
        clients = [
            stack.enter_context(
                StreamClient(site.port, "x", headers=f"Last-Event-ID: {positions[index % 100]}\r\n")
            )
            for index in range(number)
        ]
        gather(clients, lambda client: len(client.events) >= 1 and client.events[-1].data == "99")
        print(f"{worker}: {number} clients are live after {time.monotonic() - begin:.2f} s")
        for index, client in enumerate(clients):
            numbers = [int(event.data) for event in client.events[1:]]
            assert numbers == [*range(index % 100, 100)]
        reads = redis_server.admin.info("commandstats")["cmdstat_eval"]["calls"]
        assert reads <= 20
        sse.publish(100, channel="x")
        gather(clients, lambda client: client.events[-1].data == "100")


def test_the_clock_is_set_back(worker: str, make_app: MakeApp, tmp_path: Path) -> None:
    """If the clocks of Redis and the site go back two hours, the log continues where it was."""
    clock = Clock(tmp_path)
    server = RedisServer(tmp_path, environment=clock.of_redis, appendonly="yes")
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        settings = {"REDIS_URL": server.url, **SETTINGS}
        app = make_app(**settings)
        site = stack.enter_context(
            servers.gunicorn(
                tmp_path,
                *servers.WORKERS[worker],
                settings=settings,
                environment=clock.of_python,
            )
        )
        client = stack.enter_context(FollowingClient(site.port, "x"))
        publisher = stack.enter_context(Publisher(app, "x"))
        publisher.wait(50)
        clock.move(-TWO_HOURS)
        for now in (server.admin.time()[0], _time_of(site)):
            assert abs(now - time.time() + TWO_HOURS) < 60
        publisher.wait(50)
        client.cut()
        publisher.wait(50)
        server.kill_pubsub()
        publisher.wait(50)
        server.stop()
        server.start()
        publisher.wait(50)
        publisher.stop()
        client.wait_position(app)
        check(client.events, publisher.failures)
        assert client.connections > 1
        assert not client.resets()


def _time_of(site: Site) -> float:
    """Return what time it is for the server."""
    with urlopen(f"http://{LOOPBACK}:{site.port}/", timeout=PATIENCE) as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()


def test_publishers_without_history(site: Site, app: Flask, redis_server: RedisServer) -> None:
    """Events of 1.0 on the same channel, and malformed events, do not disturb positions."""
    with FollowingClient(site.port, "x") as client, Publisher(app, "x") as publisher:

        def others() -> list[Event]:
            return [event for event in client.events if event.type == "old"]

        def are_there(number: int) -> bool:
            return len(others()) == number

        for number in range(1, 6):
            publisher.wait(10)
            redis_server.admin.publish("x", "malformed")
            redis_server.admin.publish("x", f'{{"data": "{number}", "type": "old", "id": "7"}}')
            wait_until(partial(are_there, number), "an event of 1.0 arrives")
            client.cut()
            client.wait_connections(number + 1)
        last = publisher.stop()
        client.wait_position(app)
        assert [event.data for event in others()] == [str(number) for number in range(1, 6)]
        # The id of an event is the last one that the client knows.
        assert "7" not in {event.id for event in client.events}
        check([event for event in client.events if event.type != "old"])
        assert client.numbers() == [*range(last + 1)]
        assert not client.resets()
    assert site.log().count("publishes to it without history") == 1
    assert "malformed event" in site.log()


def test_a_malformed_entry_of_the_log(site: Site, app: Flask, redis_server: RedisServer) -> None:
    """Live clients and those that return get what is before it and after it, without a reset."""
    with FollowingClient(site.port, "x") as live, app.app_context():
        sse.publish(0, channel="x")
        live.wait_number(0)
        worker = site.worker()
        worker.suspend()
        # What is published now is for the log only.
        redis_server.kill_pubsub()
        for number in (1, 2, 3):
            sse.publish(number, channel="x")
        _spoil(redis_server, 2)
        worker.resume()
        live.wait_number(3)
        sse.publish(4, channel="x")
        live.wait_number(4)
        opening = live.events[0].id
        with StreamClient(site.port, "x", headers=f"Last-Event-ID: {opening}\r\n") as returned:
            for events in (live.events, returned.wait_events(5)):
                check(events, failures=[2])
                assert [int(event.data) for event in events[1:]] == [0, 1, 3, 4]
    assert "malformed event" in site.log()


def _spoil(redis_server: RedisServer, index: int) -> None:
    """Make an entry of the only log malformed."""
    admin = redis_server.admin
    [log] = admin.keys("flask-sse:*")
    entries: Any = admin.xrange(log)
    admin.delete(log)
    for number, (name, fields) in enumerate(entries):
        payload = b"malformed" if number == index else fields[b"payload"]
        admin.xadd(log, {**fields, b"payload": payload}, id=name)


@pytest.mark.long
def test_two_databases(
    site: Site,
    app: Flask,
    worker: str,
    make_app: MakeApp,
    redis_server: RedisServer,
    tmp_path: Path,
) -> None:
    """Two sites with one Redis and a database each, on one channel, have a log each."""
    settings = {"REDIS_URL": f"{redis_server.url}/1", **SETTINGS}
    other_app = make_app(**settings)
    with (
        servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings) as other_site,
        FollowingClient(site.port, "x") as client,
        FollowingClient(other_site.port, "x") as other_client,
        Publisher(app, "x") as publisher,
        Publisher(other_app, "x", start=1_000_000) as other_publisher,
    ):
        for _ in range(6):
            publisher.wait(10)
            redis_server.kill_pubsub()
            other_publisher.wait(10)
            client.cut()
            other_client.cut()
        last, other_last = publisher.stop(), other_publisher.stop()
        client.wait_position(app)
        other_client.wait_position(other_app)
    own = _events_of(client, range(1_000_000))
    check(own)
    assert [int(event.data) for event in own if event.type == "message"] == [*range(last + 1)]
    own = _events_of(other_client, range(1_000_000, 2_000_000))
    check(own)
    numbers = [int(event.data) for event in own if event.type == "message"]
    assert numbers == [*range(1_000_000, other_last + 1)]
    for each in (client, other_client):
        assert not each.resets()
        assert each.connections > 2


def _events_of(client: FollowingClient, numbers: Sequence[int]) -> list[Event]:
    """Return a client's events but for those of another log."""
    return [e for e in client.events if e.type != "message" or int(e.data) in numbers]


def test_a_large_event(site: Site, app: Flask) -> None:
    """10 MB arrive whole and in order: live, at a slow client, and at one that returns."""
    text = "x" * (10 << 20)
    with (
        StreamClient(site.port, "x").open() as live,
        StreamClient(site.port, "x", receive_buffer=4096).open() as slow,
        app.app_context(),
    ):
        [first] = live.wait_events(1)
        for data in ("before", text, "after"):
            sse.publish(data, channel="x")
        headers = f"Last-Event-ID: {first.id}\r\n"
        with StreamClient(site.port, "x", headers=headers).open() as returned:
            clients = (live, returned, slow)
            # All at once: one that is not read for half a minute is disconnected.
            gather(clients, lambda client: len(client.events) >= 4)
            for client in clients:
                types = [event.type for event in client.events]
                assert types == ["sse.open", *["message"] * 3]
                assert [event.data for event in client.events[1:]] == ["before", text, "after"]


@pytest.mark.long
def test_a_half_open_link_to_the_site(
    worker: str, make_app: MakeApp, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A site whose connections to Redis die silently notices that, and nothing is missing."""
    app = make_app(REDIS_URL=redis_server.url, **SETTINGS)
    with ExitStack() as stack:
        proxy = stack.enter_context(ForgetfulProxy(redis_server.port))
        settings = {"REDIS_URL": f"redis://{LOOPBACK}:{proxy.port}", **SETTINGS}
        site = stack.enter_context(
            servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings)
        )
        client = stack.enter_context(FollowingClient(site.port, "x"))
        publisher = stack.enter_context(Publisher(app, "x"))
        publisher.wait(50)
        proxy.forget_all()
        lost = publisher.number + 10
        publisher.wait(50)
        assert proxy.forgotten >= 1
        assert lost not in client.numbers()
        wait_until(lambda: lost in client.numbers(), "the site notices")
        last = publisher.stop()
        client.wait_position(app)
        check(client.events)
        assert client.numbers() == [*range(last + 1)]
        assert client.connections == 1
        assert not client.resets()


def test_a_half_open_link_to_redis(make_app: MakeApp, redis_server: RedisServer) -> None:
    """If an answer never arrives, it is awaited twice, and the event is published once."""
    with _Swallower(redis_server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}?socket_timeout=2"
        app = make_app(REDIS_URL=url, **SETTINGS)
        with app.app_context():
            start = history.position("x")
            assert sse.publish("first", channel="x") == 0
            for number in range(2):
                proxy.swallow_next = True
                assert sse.publish(number, channel="x") == 0
            direct = make_app(REDIS_URL=redis_server.url, **SETTINGS)
        with direct.app_context(), closing(history.messages("x", after=start)) as messages:
            assert [next(messages).data for _ in range(3)] == ["first", 0, 1]
            sse.publish("last", channel="x")
            assert next(messages).data == "last"


def test_a_command_that_comes_late(make_app: MakeApp, redis_server: RedisServer) -> None:
    """A command that Redis receives after its repetition does not publish the event again."""
    with _Swallower(redis_server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}?socket_timeout=2"
        app = make_app(REDIS_URL=url, **SETTINGS)
        direct = make_app(REDIS_URL=redis_server.url, **SETTINGS)

        def commands() -> int:
            return int(redis_server.admin.info("commandstats")["cmdstat_evalsha"]["calls"])

        with app.app_context():
            start = history.position("x")
            sse.publish("first", channel="x")
            proxy.hold_next = True
            sse.publish("repeated", channel="x")
        with direct.app_context():
            for number in range(100):
                sse.publish(number, channel="x")
            before = commands()
            proxy.go_on.set()
            wait_until(lambda: commands() > before, "Redis has the late command")
            sse.publish("last", channel="x")
            with closing(history.messages("x", after=start)) as messages:
                heard = [next(messages).data for _ in range(103)]
        assert heard == ["first", "repeated", *range(100), "last"]


class _Swallower:
    """A proxy to Redis that can lose an answer, and whatever comes on that connection later.

    It can also hold a command back, which arrives when its client has given up.
    """

    def __init__(self, port: int) -> None:
        self.swallow_next = False
        self.hold_next = False
        self.go_on = threading.Event()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._stack = ExitStack()

    def __enter__(self) -> "_Swallower":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._stack.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._stack.callback(client.close)
            self._stack.callback(server.close)
            threading.Thread(target=self._relay, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._relay, args=(server, client, True), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        lost = False
        try:
            while data := source.recv(1 << 16):
                if answers and self.swallow_next and not data.startswith(b"+"):
                    self.swallow_next = False
                    lost = True
                if not answers and self.hold_next and b"EVALSHA" in data:
                    self.hold_next = False
                    self.go_on.wait(PATIENCE)
                if not lost:
                    target.sendall(data)
        except OSError:
            return


@pytest.mark.long
def test_a_failover_that_loses_writes(worker: str, make_app: MakeApp, tmp_path: Path) -> None:
    """A replica that has not received the last events becomes the primary: all are told."""
    first, second, sentinel = (RedisServer(tmp_path) for _ in range(3))
    with ExitStack() as stack:
        for server in (first, second, sentinel):
            stack.callback(server.stop)
        first.start()
        second.options["replicaof"] = f"127.0.0.1 {first.port}"
        second.start()
        sentinel.start_sentinel("demo", first)
        wait_until(lambda: sentinel.admin.sentinel_slaves("demo"), "the replica is known")
        settings = {**SETTINGS, "REDIS_URL": f"redis+sentinel://127.0.0.1:{sentinel.port}/demo/0"}
        app = make_app(**settings)
        site = stack.enter_context(
            servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings)
        )
        client = stack.enter_context(FollowingClient(site.port, "x"))
        with app.app_context():
            for number in range(10):
                sse.publish(number, channel="x")
            assert first.admin.wait(1, 5000) == 1
            second.freeze()
            # What is sent on that connection would be read when the replica goes on.
            first.admin.client_kill_filter(_type="replica")
            for number in range(10, 15):
                sse.publish(number, channel="x")
        client.wait_number(14)
        first.crash()
        second.thaw()
        with Publisher(app, "x", 0.05, start=15) as publisher:
            publisher.wait(10, 60)
            wait_until(lambda: len(client.numbers()) > 25, "events of the new primary")
            publisher.stop()
        client.wait_position(app)
        check(client.events, publisher.failures)
        assert client.resets() >= 1


@pytest.mark.long
def test_a_failover_with_three_of_each(make_app: MakeApp, tmp_path: Path) -> None:
    """Three sentinels, three sites: what the replica has received is missing nowhere."""
    first, second, *sentinels = (RedisServer(tmp_path) for _ in range(5))
    with ExitStack() as stack:
        for server in (first, second, *sentinels):
            stack.callback(server.stop)
        first.start()
        second.options["replicaof"] = f"{LOOPBACK} {first.port}"
        second.start()
        for sentinel in sentinels:
            sentinel.start_sentinel("demo", first, quorum=2)
        wait_until(lambda: all(map(_is_ready, sentinels)), "all sentinels know each other")
        hosts = ",".join(f"{LOOPBACK}:{sentinel.port}" for sentinel in sentinels)
        settings = {**SETTINGS, "REDIS_URL": f"redis+sentinel://{hosts}/demo/0"}
        app = make_app(**settings)
        sites = [
            stack.enter_context(servers.gunicorn(tmp_path, *options, settings=settings))
            for options in servers.WORKERS.values()
        ]
        clients = [stack.enter_context(FollowingClient(site.port, "x")) for site in sites]
        assert len(clients) == 3
        with Publisher(app, "x") as publisher:
            publisher.wait(100)
            start = publisher.stop() + 1
        assert first.admin.wait(1, 5000) == 1
        # A host is lost that has the primary, and the sentinel that everybody asks first.
        sentinels[0].crash()
        first.crash()
        with Publisher(app, "x", 0.02, start=start) as after:
            wait_until(
                lambda: all(client.numbers()[-1] > start for client in clients),
                "events of the new primary",
                90,
            )
            clients[0].cut()
            after.wait(20)
            after.stop()
        for client in clients:
            client.wait_position(app)
            check(client.events, [*publisher.failures, *after.failures])
            assert not client.resets()


def _is_ready(sentinel: RedisServer) -> bool:
    """Whether a sentinel knows a replica and two others."""
    state: Any = sentinel.admin.sentinel_master("demo")
    return bool(state["num-slaves"] and state["num-other-sentinels"] == 2)
