"""Presence when Redis loses everything, fails over, or has another clock than the site."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from flask_sse._redis.slots import slot
from tests.support import servers
from tests.support.clock import Clock
from tests.support.presence import SHORT, Page, Watcher
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until

APP: Final = "tests.apps.present:app"
# A restart must not take longer than a lease, which on a busy machine may be some seconds.
TIMES: Final = SHORT._replace(lease=30.0, farewell=20.0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return what ends everything."""
    with ExitStack() as stack:
        yield stack


def serve(
    stack: ExitStack, folder: Path, url: str, environment: Mapping[str, str] | None = None
) -> Site:
    """Serve the site in two processes."""
    settings = {"REDIS_URL": url, "SSE_PRESENCE": ["channel-*"], "TIMES": TIMES}
    options = (*servers.WORKERS["gevent"], "--workers", "2")
    return stack.enter_context(
        servers.gunicorn(folder, *options, app=APP, settings=settings, environment=environment)
    )


def announced(*sites: Site) -> Counter[tuple[str, str]]:
    """Return which events about members the processes have published, and how often."""
    found: Counter[tuple[str, str]] = Counter()
    for site in sites:
        for line in site.log().splitlines():
            if line.startswith("signal ") and "sse." in line:
                name, _, values = json.loads(line.removeprefix("signal "))
                if name == "message_published":
                    found[_event(values)] += 1
    return found


def _event(values: Mapping[str, Any]) -> tuple[str, str]:
    text: str = values["message"]
    kind = "join" if "sse.join" in text else "leave"
    return kind, text.partition("'client': '")[2].partition("'")[0]


def test_redis_restarts_empty(
    stack: ExitStack, tmp_path: Path, redis_server: RedisServer, channel: str
) -> None:
    """It knows everybody again soon, nobody joins, and what has happened meanwhile is told."""
    site = serve(stack, tmp_path, redis_server.url)
    watcher = Watcher(redis_server.url, channel)
    stack.callback(watcher.rest)
    names = [f"user-{number}" for number in range(8)]
    pages = {name: stack.enter_context(Page(site.port, channel, name)) for name in names}
    watcher.wait_members(**dict.fromkeys(names, 1))
    joined = Counter(("join", name) for name in names)
    wait_until(lambda: announced(site) == joined, "all joins are announced")
    redis_server.stop()
    pages.pop("user-0").close()
    wait_until(lambda: "can't be told who is present" in site.log(), "it is logged")
    redis_server.start()
    watcher.wait_members(**dict.fromkeys(pages, 1))
    wait_until(lambda: ("leave", "user-0") in announced(site), "it has left")
    # Who would have joined again has done so by now: all have renewed their leases.
    assert announced(site) == joined + Counter([("leave", "user-0")])
    assert 1 <= site.log().count("can't be told who is present") <= 2


@pytest.mark.long
@pytest.mark.parametrize("is_killed", [True, False])
def test_failover_in_a_cluster(
    stack: ExitStack, tmp_path: Path, redis_cluster: RedisCluster, channel: str, is_killed: bool
) -> None:
    """The replica knows everybody, perhaps after a renewal, and nobody joins or leaves."""
    site = serve(stack, tmp_path, redis_cluster.url)
    watcher = Watcher(redis_cluster.url, channel)
    stack.callback(watcher.rest)
    names = [f"user-{number}" for number in range(8)]
    for name in names:
        stack.enter_context(Page(site.port, channel, name))
    watcher.wait_members(**dict.fromkeys(names, 1))
    joined = Counter(("join", name) for name in names)
    wait_until(lambda: announced(site) == joined, "all joins are announced")
    primary = redis_cluster.node_of(channel.encode())
    if is_killed:
        redis_cluster.kill(primary)
        redis_cluster.wait_replaced(primary, slot(channel.encode()))
    else:
        redis_cluster.failover(primary)
    with Page(site.port, channel, "new"):
        watcher.wait_members(**dict.fromkeys([*names, "new"], 1))
    watcher.wait_members(**dict.fromkeys(names, 1))
    wait_until(lambda: ("leave", "new") in announced(site), "it has left")
    assert announced(site) == joined + Counter([("join", "new"), ("leave", "new")])


@pytest.mark.long
def test_clocks(stack: ExitStack, tmp_path: Path, shared_redis: RedisServer, channel: str) -> None:
    """Processes whose clocks are an hour apart see the same members, and keep each other's."""
    clock = Clock(tmp_path)
    clock.move(3600)
    now = serve(stack, tmp_path, shared_redis.url)
    later = serve(stack, tmp_path, shared_redis.url, clock.of_python)
    watcher = Watcher(shared_redis.url, channel)
    stack.callback(watcher.rest)
    first = stack.enter_context(Page(now.port, channel, "alice"))
    second = stack.enter_context(Page(later.port, channel, "alice"))
    for name, site in (("bob", now), ("carol", later)):
        stack.enter_context(Page(site.port, channel, name))
    watcher.wait_members(alice=2, bob=1, carol=1)
    first.close()
    watcher.wait_members(alice=1, bob=1, carol=1)
    second.close()
    watcher.wait_members(bob=1, carol=1)
    wait_until(lambda: ("leave", "alice") in announced(now, later), "she has left")
    joined = Counter(("join", name) for name in ("alice", "bob", "carol"))
    wait_until(lambda: len(announced(now, later)) == 4, "all is announced")
    assert announced(now, later) == joined + Counter([("leave", "alice")])
