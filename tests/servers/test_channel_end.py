"""The end of a channel under gunicorn: each stream ends properly, with everything before it."""

from collections.abc import Iterator, Sequence
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
KINDS: Final = [*servers.MOST_USED, "read"]


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
