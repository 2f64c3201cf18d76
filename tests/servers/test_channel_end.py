"""The end of a channel under gunicorn: each stream ends properly, with everything before it."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.gathering import gather
from tests.support.parser import Event
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until

APP: Final = "tests.apps.ending:app"
CLIENTS: Final = 20
EVENTS: Final = 100
ROUNDS: Final = 2
KINDS: Final = [*servers.MOST_USED, "read"]
FEW_KINDS: Final = [*servers.MOST_USED, pytest.param("read", marks=pytest.mark.long)]


@pytest.fixture(params=KINDS)
def site(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path: Path
) -> Iterator[Site]:
    """Return the site under two workers."""
    kind: str = request.param
    settings = {
        "REDIS_URL": shared_redis.url,
        "SSE_DIRECT": kind != "read",
        "SSE_HISTORY": {"channel*": 10_000},
    }
    options = (*servers.WORKERS["gevent" if kind == "read" else kind], "--workers", "2")
    with servers.gunicorn(tmp_path, *options, app=APP, settings=settings) as site:
        yield site


def publish(site: Site, channel: str, size: int = 10) -> None:
    """Publish many events."""
    site.get(f"/publish-many?number={EVENTS}&size={size}&channel={channel}")


def numbers(events: Sequence[Event]) -> list[int]:
    """Return the numbers of the published events."""
    return [int(event.data.split()[0]) for event in events if event.type == "message"]


@pytest.mark.parametrize("site", FEW_KINDS, indirect=True)
def test_all_streams_end(site: Site, shared_redis: RedisServer, channel: str) -> None:
    """Those of one channel, and those of several; later, each client is told not to come back."""
    other = f"{channel}-other"
    paths = {f"/stream?channel={channel}": 1, f"/events?name={channel}&name={other}": 2}
    clients: list[tuple[str, StreamClient]] = []
    with ExitStack() as stack:

        def is_in_both_workers() -> bool:
            for path in paths:
                client = stack.enter_context(StreamClient(site.port, path=path))
                clients.append((path, client.open()))
            return len(clients) >= CLIENTS and shared_redis.listeners(other) == 2

        wait_until(is_in_both_workers, "clients of both workers")
        for name in (channel, other):
            publish(site, name)
            assert int(site.get(f"/end?channel={name}")) == 2
            publish(site, name)
        gather([client for _, client in clients], lambda client: client.ended)
        for path, client in clients:
            assert client.complete
            assert numbers(client.events) == [*range(EVENTS)] * paths[path]
            assert client.events[-1].type == "sse.end"
            headers = f"Last-Event-ID: {client.events[-1].id}\r\nConnection: close\r\n"
            with StreamClient(site.port, path=path, headers=headers) as back:
                assert back.read_headers().status == 204
                assert back.read_rest() == b""
    wait_until(lambda: site.log().count('"reason": "end"') == len(clients), "all have ended")


def follow(site: Site, path: str, seed: int) -> list[Event]:
    """Read a stream, and come back after each cut, until the server says that it is over."""
    chance = random.Random(seed)
    events: list[Event] = []
    while True:
        headers = f"Last-Event-ID: {events[-1].id}\r\n" if events else ""
        with StreamClient(site.port, path=path, headers=headers) as client:
            if client.read_headers().status == 204:
                return events
            number = chance.randint(1, EVENTS // 2)
            while len(client.events) < number and not client.ended:
                client.receive()
            events += client.events


@pytest.mark.long
def test_clients_that_are_cut(site: Site, channel: str) -> None:
    """They get each event once, up to the end, however often they come back."""
    names = [channel, f"{channel}-other"]
    paths = [f"/stream?channel={channel}", "/events?" + "&".join(f"name={one}" for one in names)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        found = {
            path: [pool.submit(follow, site, path, seed) for seed in range(CLIENTS // 2)]
            for path in paths
        }
        wait_until(lambda: site.log().count("client_connected") >= CLIENTS, "connected")
        for name in names * ROUNDS:
            publish(site, name)
        for name in names:
            site.get(f"/end?channel={name}")
            publish(site, name)
    for path, tasks in found.items():
        for task in tasks:
            events = [event for event in task.result() if event.type != "sse.open"]
            ends = [event for event in events if event.type == "sse.end"]
            assert len(ends) == 1 + paths.index(path)
            assert len(numbers(events)) == len(events) - len(ends)
            assert sorted(numbers(events)) == sorted([*range(EVENTS)] * ROUNDS * len(ends))


def test_a_client_that_reads_slowly(site: Site, channel: str) -> None:
    """It gets everything up to the end and a proper end, while others have begun anew."""
    path = f"/stream?channel={channel}"
    with (
        StreamClient(site.port, path=path, receive_buffer=4096) as slow,
        StreamClient(site.port, path=path) as reader,
    ):
        slow.open().wait_events(1)
        reader.open().wait_events(1)
        publish(site, channel, size=20_000)
        assert int(site.get(f"/end?channel={channel}")) >= 1
        reader.wait_end()
        publish(site, channel)
        slow.wait_end()
        for client in (slow, reader):
            assert client.complete
            assert numbers(client.events) == [*range(EVENTS)]
            assert client.events[-1].type == "sse.end"
