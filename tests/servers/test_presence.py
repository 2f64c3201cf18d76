"""Presence under gunicorn with two workers: tabs, reloads, deploys and dead processes."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import psutil
import pytest

from flask_sse._presence.room import Times
from tests.support import servers
from tests.support.presence import SHORT, Page, Watcher
from tests.support.processes import wait_gone
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import PATIENCE, wait_until

APP: Final = "tests.apps.present:app"
KINDS: Final = [
    *servers.MOST_USED,
    pytest.param("read", marks=pytest.mark.long),
    pytest.param("cluster", marks=pytest.mark.long),
]
GONE_WITHIN: Final = 60.0
"""Seconds within which the members of a process that has died are gone."""
BACK_AFTER: Final = 3.0
"""Seconds after which browsers come back."""

Open = Callable[..., Page]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return how the site is served."""
    kind: str = request.param
    return kind


@pytest.fixture
def redis(request: pytest.FixtureRequest, kind: str) -> RedisServer | RedisCluster:
    """Return the Redis of the site."""
    name = "shared_cluster" if kind == "cluster" else "shared_redis"
    found: RedisServer | RedisCluster = request.getfixturevalue(name)
    return found


def serve(
    stack: ExitStack,
    folder: Path,
    url: str,
    kind: str,
    *,
    times: Times | None,
    max_age: float | None = None,
) -> Site:
    """Serve the site."""
    settings = {
        "REDIS_URL": url,
        "SSE_DIRECT": kind != "read",
        "SSE_PRESENCE": ["channel-*"],
        "SSE_MAX_AGE": max_age,
        "TIMES": times,
    }
    worker = servers.WORKERS[kind if kind in servers.WORKERS else "gevent"]
    options = (*worker, "--workers", "2", "--graceful-timeout", "5")
    return stack.enter_context(servers.gunicorn(folder, *options, app=APP, settings=settings))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return what ends everything."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def times() -> Times:
    """Return the times of the leases."""
    return SHORT


@pytest.fixture
def site(
    stack: ExitStack, tmp_path: Path, redis: RedisServer | RedisCluster, kind: str, times: Times
) -> Site:
    """Return the site under two workers."""
    return serve(stack, tmp_path, redis.url, kind, times=times)


@pytest.fixture
def watcher(stack: ExitStack, redis: RedisServer | RedisCluster, channel: str) -> Watcher:
    """Return what sees the events of the channel."""
    return stack.enter_context(Watcher(redis.url, channel))


@pytest.fixture
def open_page(stack: ExitStack, site: Site, channel: str) -> Open:
    """Return a function that opens a page."""
    return lambda client, **options: stack.enter_context(
        Page(site.port, channel, client, **options)
    )


def worker_of(site: Site, page: Page) -> psutil.Process:
    """Return the worker that has the stream of a page."""
    for worker in site.process.children():
        for connection in worker.net_connections("tcp"):
            if connection.raddr and connection.raddr.port == page.local_port:
                return worker
    raise AssertionError("no worker has it")


def open_in(site: Site, open_page: Open, worker: psutil.Process, client: str) -> Page:
    """Open a page in a worker; the operating system chooses one each time."""
    for _ in range(200):
        page = open_page(client)
        if worker_of(site, page) == worker:
            return page
        page.close()
    raise AssertionError("no page was opened there")


def test_tabs_and_reloads(site: Site, watcher: Watcher, open_page: Open) -> None:
    """A user with several tabs in both workers joins once, and leaves after the last one."""
    pages = [open_page("alice") for _ in range(10)]
    watcher.wait_members(alice=10)
    for _ in range(5):
        pages.append(open_page("alice"))
        pages.pop(0).close()
    watcher.wait_members(alice=10)
    open_page("bob").close()
    watcher.wait(("join", "alice"), ("join", "bob"), ("leave", "bob"))
    for page in pages:
        page.close()
    watcher.wait(("join", "alice"), ("join", "bob"), ("leave", "bob"), ("leave", "alice"))
    assert watcher.members() == {}


@pytest.mark.parametrize("times", [SHORT._replace(lease=PATIENCE, farewell=PATIENCE)])
def test_a_deploy(site: Site, watcher: Watcher, open_page: Open) -> None:
    """Members whose pages reconnect in time neither leave nor join."""
    names = [f"user-{number}" for number in range(5)]
    pages = [open_page(name) for name in names]
    watcher.wait(*[("join", name) for name in names])
    old = site.process.children()
    site.process.send(signal.SIGHUP)
    for worker in old:
        wait_gone(worker)
    wait_until(lambda: all(page.streams > 1 for page in pages), "all are back")
    pages.append(open_page("new"))
    watcher.wait(*[("join", name) for name in (*names, "new")])
    assert watcher.members().keys() == {*names, "new"}


@pytest.mark.parametrize(
    "kind", ["gevent", pytest.param("read", marks=pytest.mark.long)], indirect=True
)
def test_streams_of_a_certain_age(
    stack: ExitStack,
    tmp_path: Path,
    redis: RedisServer | RedisCluster,
    kind: str,
    watcher: Watcher,
    channel: str,
) -> None:
    """The server ends a stream, the page reconnects as late as a browser: the member stays."""
    site = serve(stack, tmp_path, redis.url, kind, times=SHORT, max_age=1)
    page = stack.enter_context(Page(site.port, channel, "alice", pause=3 * SHORT.absence))
    wait_until(lambda: page.streams >= 3, "the second stream has ended, too")
    watcher.wait(("join", "alice"))


@pytest.mark.parametrize("times", [SHORT._replace(lease=8.0)])
def test_a_worker_is_killed(site: Site, watcher: Watcher, open_page: Open) -> None:
    """Its members have left, except those with a page elsewhere, who have never left."""
    alice = open_page("alice")
    doomed = worker_of(site, alice)
    (other,) = (worker for worker in site.process.children() if worker != doomed)
    open_in(site, open_page, other, "bob")
    gone = open_in(site, open_page, doomed, "gone")
    watcher.wait_members(alice=1, bob=1, gone=1)
    doomed.suspend()
    gone.close()
    doomed.kill()
    wait_until(lambda: "gone" not in watcher.members(), "it is gone")
    watcher.wait_members(alice=1, bob=1)
    wait_until(lambda: ("leave", "gone") in watcher.events, "all are told")
    assert {name for kind, name in watcher.events if kind == "leave"} <= {"gone"}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["gevent"], indirect=True)
def test_the_usual_times(
    stack: ExitStack, tmp_path: Path, redis: RedisServer, watcher: Watcher, channel: str
) -> None:
    """The same with the times that sites have: a kill, and a deploy after which one is back."""
    site = serve(stack, tmp_path, redis.url, "gevent", times=None)

    def open_page(client: str) -> Page:
        return stack.enter_context(Page(site.port, channel, client, BACK_AFTER))

    gone = open_page("gone")
    doomed = worker_of(site, gone)
    (other,) = (worker for worker in site.process.children() if worker != doomed)
    open_in(site, open_page, other, "alice")
    watcher.wait_members(alice=1, gone=1)
    doomed.suspend()
    gone.close()
    doomed.kill()
    killed = time.monotonic()
    wait_until(lambda: ("leave", "gone") in watcher.events, "it is gone", GONE_WITHIN + 10)
    assert time.monotonic() - killed < GONE_WITHIN + 1
    leaving = open_page("leaving")
    watcher.wait_members(alice=1, leaving=1)
    old = site.process.children()
    site.process.send(signal.SIGHUP)
    for worker in old:
        wait_gone(worker)
    leaving.close()
    wait_until(lambda: "leaving" not in watcher.members(), "it has left")
    watcher.wait_members(alice=1)
