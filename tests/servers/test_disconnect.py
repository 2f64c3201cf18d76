"""`streams.disconnect` under gunicorn: in each process, within a second, with a proper end."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.gathering import gather
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until

APP: Final = "tests.apps.named:app"
KINDS: Final = [*servers.MOST_USED, "read", pytest.param("cluster", marks=pytest.mark.long)]
FEW_KINDS: Final = [
    *servers.MOST_USED,
    *(pytest.param(kind, marks=pytest.mark.long) for kind in ("read", "cluster")),
]
CLIENTS: Final = 40
MOST_CLIENTS: Final = 400
HISTORY: Final = {"SSE_HISTORY": {"kept*": 1000}}


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Return the site under two workers that both have streams."""
    kind: str = request.param
    redis: RedisServer | RedisCluster = request.getfixturevalue(
        "shared_cluster" if kind == "cluster" else "shared_redis"
    )
    settings = {"REDIS_URL": redis.url, "SSE_DIRECT": kind != "read", **HISTORY}
    worker = kind if kind in servers.WORKERS else "gevent"
    options = (*servers.WORKERS[worker], "--workers", "2")
    with servers.gunicorn(tmp_path, *options, app=APP, settings=settings) as site:
        yield site


def open_own(site: Site, client: str, *channels: str) -> StreamClient:
    """Open a stream of a client with a name."""
    query = "&".join([f"client={client}", *[f"channel={channel}" for channel in channels]])
    return StreamClient(site.port, path=f"/own?{query}")


def told(site: Site, query: str) -> int:
    """Disconnect what the query says; return how many processes were told."""
    return int(site.get(f"/disconnect?{query}"))


def test_all_streams_of_a_client(site: Site, channel: str) -> None:
    """They end in both processes, with what has been published before; others stay open."""
    clients: list[tuple[str, StreamClient]] = []
    # The operating system chooses a worker for each client.
    for _ in range(MOST_CLIENTS):
        clients.append(("alice", open_own(site, "alice", channel, f"kept-{channel}").open()))
        if told(site, "client=nobody") == 2:
            break
    # Clients that all connect to a worker without a Redis connection may be told to reconnect.
    names = itertools.cycle(["alice", "bob"])
    clients += [
        (name, open_own(site, name, channel, f"kept-{channel}"))
        for name, _ in zip(names, range(CLIENTS), strict=False)
    ]
    plain = StreamClient(site.port, channel)
    gather([plain, *[client for _, client in clients]], lambda one: one.parser.comments > 0)
    site.publish("before", f"kept-{channel}")
    assert told(site, "client=alice") == 2
    alices = [client for name, client in clients if name == "alice"]
    gather(alices, lambda client: client.ended)
    for client in alices:
        assert client.complete
        assert not client.was_reset
        assert [event.data for event in client.events if event.type == "message"] == ["before"]
    site.publish("after", channel)
    bobs = [client for name, client in clients if name == "bob"]
    gather(bobs, lambda client: any(event.data == "after" for event in client.events))
    assert plain.wait_events(1)[0].data == "after"
    wait_until(lambda: site.log().count('"reason": "disconnect"') == len(alices), "signals")
    for client in (plain, *[client for _, client in clients]):
        client.close()


@pytest.mark.parametrize("site", FEW_KINDS, indirect=True)
def test_it_takes_less_than_a_second(site: Site, channel: str) -> None:
    """On a machine that is busy with something else, at least one time of five."""
    times: list[float] = []
    for _ in range(5):
        with open_own(site, "alice", channel).open() as client:
            begin = time.monotonic()
            assert told(site, "client=alice") >= 1
            client.wait_end()
            times.append(time.monotonic() - begin)
    assert min(times) < 1


@pytest.mark.parametrize("site", FEW_KINDS, indirect=True)
def test_coming_back(site: Site, channel: str) -> None:
    """A client that may stay resumes, and misses nothing."""
    kept = f"kept-{channel}"
    with open_own(site, "alice", kept).open() as client:
        site.publish("one", kept)
        client.wait_events(2)
        assert told(site, f"channel={kept}") >= 1
        client.wait_end()
        assert client.complete
        last = client.events[-1].id
    site.publish("two", kept)
    headers = f"Last-Event-ID: {last}\r\n"
    path = f"/own?client=alice&channel={kept}"
    with StreamClient(site.port, path=path, headers=headers).open() as client:
        opening, event = client.wait_events(2)
        assert '"recovered": true' in opening.data
        assert event.data == "two"
