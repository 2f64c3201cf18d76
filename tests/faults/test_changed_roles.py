"""A Redis whose primary becomes a replica, while its name and the connections to it stay."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from flask import Flask

from flask_sse import ServerSentEventsBlueprint, history, sse
from flask_sse._redis.pool import CheckedPool
from flask_sse.testing import Stream, open_stream
from tests.support.listening import listening
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.relay import Link, Relay
from tests.support.waiting import PATIENCE, wait_until

MakeApp = Callable[..., Flask]


class Site:
    """Two servers, and a name that leads to one of them."""

    def __init__(self, folder: Path) -> None:
        self.old = RedisServer(folder)
        self.new = RedisServer(folder)
        for server in (self.old, self.new):
            server.options["repl-diskless-sync-delay"] = "0"
        self.name: Relay[Link] | None = None

    @property
    def url(self) -> str:
        """The URL for ``REDIS_URL``."""
        assert self.name is not None
        return f"redis://{LOOPBACK}:{self.name.port}"

    def demote(self, *, is_in_sync: bool = True) -> None:
        """Make the old server a replica of the new one, which gets its data first.

        :param is_in_sync: Whether the old one then gets the data of the new one, or can't reach it.
        """
        self.new.admin.replicaof(LOOPBACK, self.old.port)
        _wait_in_sync(self.new)
        self.new.admin.replicaof("NO", "ONE")
        self.old.admin.replicaof(LOOPBACK, self.new.port if is_in_sync else 1)
        if is_in_sync:
            _wait_in_sync(self.old)

    def rename(self) -> None:
        """Make the name lead to the new server; connections to the old server stay open."""
        assert self.name is not None
        self.name.lead_to(self.new.port)

    def fail_over(self, *, is_in_sync: bool = True) -> None:
        """Do both."""
        self.demote(is_in_sync=is_in_sync)
        self.rename()


def _wait_in_sync(server: RedisServer) -> None:
    wait_until(
        lambda: server.admin.info("replication").get("master_link_status") == "up",
        "the replica has the data of its primary",
        30,
    )


class Meanwhile(logging.Handler):
    """Calls a function when the first message is logged.

    :param act: The function.
    """

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act: Callable[[], object] | None = act

    def emit(self, record: logging.LogRecord) -> None:
        """Call the function, if it has not been called yet."""
        act, self._act = self._act, None
        if act is not None:
            act()


@contextmanager
def _running(folder: Path) -> Iterator[Site]:
    site = Site(folder)
    try:
        site.old.start()
        site.new.start()
        with Relay(site.old.port, Link) as site.name:
            yield site
    finally:
        site.old.stop()
        site.new.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Return a site whose name leads to the old server."""
    with _running(tmp_path) as site:
        yield site


def test_publish_follows_the_primary(make_app: MakeApp, site: Site) -> None:
    """All events that are published after the change arrive, on the new primary."""
    with make_app(REDIS_URL=site.url).app_context():
        assert sse.publish("before") == 0
        site.fail_over()
        with listening(site.new.admin) as listener:
            assert [sse.publish(number) for number in range(20)] == [1] * 20
            assert [payload["data"] for payload in listener.payloads(20)] == [*range(20)]


def test_subscribers_that_stay_with_the_replica(make_app: MakeApp, site: Site) -> None:
    """They get each event once, and those of the new primary miss one event at most."""
    with make_app(REDIS_URL=site.url).app_context(), listening(site.old.admin) as staying:
        assert sse.publish("before") == 1
        site.fail_over()
        with listening(site.new.admin) as listener:
            assert [sse.publish(number) for number in range(20)] == [1] * 20
            assert [payload["data"] for payload in listener.payloads(19)] == [*range(1, 20)]
        assert [payload["data"] for payload in staying.payloads(21)] == ["before", *range(20)]


@pytest.mark.parametrize("kept", [0, 100], ids=["no history", "history"])
def test_the_streams_of_the_publishers_process(make_app: MakeApp, site: Site, kept: int) -> None:
    """They follow to the new primary, though the old one has not got its data yet."""
    app = make_app(REDIS_URL=site.url, SSE_HISTORY=kept)
    with app.app_context(), open_stream(app) as stream:
        sse.publish("before")
        assert _next_data(stream) == "before"
        site.fail_over(is_in_sync=False)
        for number in range(20):
            sse.publish(number)
        found: list[str] = []
        while "19" not in found:
            found.append(_next_data(stream))
    if kept:
        assert found == [*map(str, range(20))]
    else:
        assert [number for number in map(str, range(20)) if number not in found] in ([], ["1"])
        assert len({*found}) == len(found)


def test_many_publish_during_the_change(make_app: MakeApp, site: Site) -> None:
    """Each thread loses what it publishes until the change, and then everything arrives."""
    app = make_app(REDIS_URL=site.url)
    has_changed, has_ended = threading.Event(), threading.Event()
    sent: list[list[str]] = [[] for _ in range(4)]
    raised: list[redis.RedisError] = []

    def publish(thread: int) -> None:
        with app.app_context():
            for number in itertools.count():
                if has_ended.is_set():
                    return
                is_after = has_changed.is_set()
                try:
                    # Nobody listens to the old primary.
                    if sse.publish(f"{thread}.{number}"):
                        has_changed.set()
                except redis.RedisError as error:
                    raised.append(error)
                    continue
                if is_after:
                    sent[thread].append(f"{thread}.{number}")

    with listening(site.new.admin) as listener, ThreadPoolExecutor(4) as pool:
        each = [pool.submit(publish, thread) for thread in range(4)]

        def have_published() -> bool:
            for thread in each:
                assert not thread.done() or thread.result() is None
            return min(map(len, sent)) > 20

        try:
            site.fail_over()
            # Until one thread has found the primary, it is looked for every 50 ms only.
            assert has_changed.wait(PATIENCE), raised
            wait_until(have_published, f"all publish after the change, or raise {raised}")
        finally:
            has_ended.set()
        for done in each:
            done.result(PATIENCE)
        expected = {data for some in sent for data in some}
        found = listener.payloads(len(expected))
    assert expected <= {payload["data"] for payload in found}
    assert len(raised) <= len(sent), "at most one for each thread"


def test_another_finds_the_primary_first(make_app: MakeApp, site: Site) -> None:
    """An event is published even if another caller finds the new primary during the search."""
    log = logging.getLogger("flask_sse")
    handler = Meanwhile(lambda: sse.publish("meanwhile"))
    with make_app(REDIS_URL=site.url).app_context():
        sse.publish("before")
        site.fail_over()
        log.addHandler(handler)
        try:
            with listening(site.new.admin) as listener:
                assert sse.publish("after") == 1
                found = [payload["data"] for payload in listener.payloads(2)]
        finally:
            log.removeHandler(handler)
    assert found == ["meanwhile", "after"]


def test_a_connection_that_was_put_back_during_a_renewal(site: Site) -> None:
    """It connects again, although the thread that used it had seen no renewal."""
    pool = CheckedPool(host=LOOPBACK, port=urlsplit(site.url).port)
    another = redis.StrictRedis(connection_pool=pool, single_connection_client=True)
    assert another.connection is not None
    site.fail_over()
    pool.renew()
    redis.ConnectionPool.release(pool, another.connection)
    with listening(site.new.admin) as listener:
        assert redis.StrictRedis(connection_pool=pool).publish("sse", "{}") == 1
        assert listener.payloads(1) == [{}]
    pool.disconnect()


def test_no_primary_anywhere(
    make_app: MakeApp, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the name leads to a replica, an event does not make a new connection each time."""
    monkeypatch.setattr("flask_sse._redis.primary.monotonic", lambda: 1.0)
    with make_app(REDIS_URL=site.url).app_context():
        assert sse.publish("before") == 0
        site.demote()
        assert site.name is not None
        before = site.name.accepted
        for _ in range(100):
            assert sse.publish("meanwhile") == 0
        assert site.name.accepted == before + 1
        site.rename()
        monkeypatch.setattr("flask_sse._redis.primary.monotonic", lambda: 1.06)
        with listening(site.new.admin) as listener:
            assert sse.publish("after") == 1
            assert [payload["data"] for payload in listener.payloads(1)] == ["after"]


def test_a_user_who_may_only_publish(make_app: MakeApp, site: Site) -> None:
    """Redis tells the role to each user who may connect."""
    for server in (site.old, site.new):
        server.admin.execute_command(
            "ACL", "SETUSER", "app", "on", ">secret", "&*", "+publish", "+select", "+client"
        )
    with make_app(REDIS_URL=site.url.replace("//", "//app:secret@")).app_context():
        assert [sse.publish("before") for _ in range(3)] == [0] * 3
        refused = site.old.admin.acl_log()
        assert len(refused) <= 1, "it is asked once for what it forbids"
        site.fail_over()
        with listening(site.new.admin) as listener:
            assert [sse.publish(number) for number in range(20)] == [1] * 20
            assert [payload["data"] for payload in listener.payloads(20)] == [*range(20)]


def test_a_site_that_uses_a_replica(
    make_app: MakeApp, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Where everybody is connected to a replica, its events arrive, and connections are kept."""
    site.demote()
    assert site.name is not None
    with make_app(REDIS_URL=site.url).app_context(), listening(site.old.admin) as listener:
        assert [sse.publish(number) for number in range(100)] == [1] * 100
        assert [payload["data"] for payload in listener.payloads(100)] == [*range(100)]
    assert site.name.accepted < 50
    assert [record.getMessage()[:55] for record in caplog.records] == [
        "the Redis that publishes the events is a replica, so th"
    ]


def test_a_replica_that_has_lost_its_primary(make_app: MakeApp, site: Site) -> None:
    """A replica that answers only some commands is left as soon as the name leads elsewhere."""
    with make_app(REDIS_URL=site.url).app_context():
        assert sse.publish("before") == 0
        site.old.admin.config_set("replica-serve-stale-data", "no")
        site.old.admin.replicaof(LOOPBACK, 1)
        assert [sse.publish("meanwhile") for _ in range(3)] == [0] * 3
        site.rename()
        with listening(site.new.admin) as listener:
            wait_until(lambda: sse.publish("after") == 1, "the primary is found")
            assert [payload["data"] for payload in listener.payloads(1)] == ["after"]


def test_history_follows_the_primary(make_app: MakeApp, site: Site) -> None:
    """No event is lost or raises an error; before the name changes, the error says why."""
    app = make_app(REDIS_URL=site.url, SSE_HISTORY=100)
    with app.app_context():
        start = history.position()
        sse.publish("before")
        site.demote()
        for attempt in (lambda: sse.publish("meanwhile"), lambda: history.position("unused")):
            with pytest.raises(redis.ReadOnlyError, match=r"replica.*REDIS_URL") as caught:
                attempt()
            assert "allows EVAL" not in str(caught.value)
        site.rename()
        for number in range(20):
            sse.publish(number)
        assert history.position("another")
        messages = history.messages(after=start)
        assert [next(messages).data for _ in range(21)] == ["before", *range(20)]
        messages.close()


def test_an_overridden_client_follows_the_primary(make_app: MakeApp, site: Site) -> None:
    """With history, its idle connections are closed too, and all events are kept."""
    assert site.name is not None
    pool = redis.BlockingConnectionPool(host=LOOPBACK, port=site.name.port)
    clients = [
        redis.StrictRedis(connection_pool=pool),
        redis.StrictRedis(host=LOOPBACK, port=site.name.port, single_connection_client=True),
    ]

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return clients[0]

    own = Own("own", __name__)
    with make_app(SSE_HISTORY=100).app_context():
        for _ in clients:
            own.publish("before")
            clients.reverse()
        site.fail_over()
        for _ in clients:
            own.publish("after")
            clients.reverse()
        position = history.position(blueprint=own)
    assert position.split(".")[1] == "4"
    pool.disconnect()
    for client in clients:
        client.close()


def test_a_log_is_read_from_the_new_primary(make_app: MakeApp, site: Site) -> None:
    """A stream of an unused channel opens, though the replica can't begin its log."""
    app = make_app(REDIS_URL=site.url, SSE_HISTORY=100)
    with app.app_context(), open_stream(app, "first") as first:
        site.fail_over()
        for name in ("first", "second"):
            sse.publish(name, channel=name)
        assert _next_data(first) == "first"
        with open_stream(app, "third") as third:
            sse.publish("third", channel="third")
            assert _next_data(third) == "third"


def test_a_log_that_has_stopped(make_app: MakeApp, site: Site) -> None:
    """A hub that has moved to the new primary does not read the log of the old one."""
    app = make_app(REDIS_URL=site.url, SSE_HISTORY=100)
    publisher = make_app(REDIS_URL=site.new.url, SSE_HISTORY=100)
    with open_stream(app) as stream:
        with app.app_context():
            sse.publish("before")
        assert _next_data(stream) == "before"
        site.fail_over(is_in_sync=False)
        with publisher.app_context():
            for number in range(3):
                sse.publish(number)
            # Its subscription ends here, but not its connection for reading logs.
            site.old.kill_pubsub()
            site.new.wait_listeners(1)
            sse.publish(3)
        assert [_next_data(stream) for _ in range(4)] == ["0", "1", "2", "3"]


def _next_data(stream: Stream) -> str:
    while (message := stream.get(timeout=30)).type == "sse.open":
        pass
    return str(message.data)
