"""`SSE_MAX_AGE` under gunicorn: streams end properly, and with history no event is lost."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.parser import Event
from tests.support.redis_server import RedisServer
from tests.support.servers import Site

APP: Final = "tests.apps.signalling:app"
CLIENTS: Final = 5
RENEWALS: Final = 4
"""How often each of them comes back."""
KINDS: Final = [*servers.MOST_USED, pytest.param("read", marks=pytest.mark.long)]


@pytest.fixture(params=KINDS)
def site(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path: Path
) -> Iterator[Site]:
    """Return the site under two workers, with streams that last for a second."""
    kind: str = request.param
    settings = {
        "REDIS_URL": shared_redis.url,
        "SSE_MAX_AGE": 1,
        "SSE_DIRECT": kind != "read",
        "SSE_HISTORY": {"aged*": 10_000},
    }
    options = (*servers.WORKERS["gevent" if kind == "read" else kind], "--workers", "2")
    with servers.gunicorn(tmp_path, *options, app=APP, settings=settings) as site:
        yield site


@contextmanager
def publishing(site: Site, channel: str) -> Iterator[None]:
    """Publish all the time, a hundred events at once."""
    done = threading.Event()

    def publish() -> None:
        while not done.wait(0.05):
            site.get(f"/publish-many?number=100&size=10&channel={channel}")

    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(publish)
        try:
            yield
        finally:
            done.set()
        task.result()


def follow(site: Site, channel: str) -> list[Event]:
    """Read a stream to its end, come back with the last id as often, and return all events."""
    events: list[Event] = []
    for _ in range(1 + RENEWALS):
        headers = f"Last-Event-ID: {events[-1].id}\r\n" if events else ""
        with StreamClient(site.port, channel, headers=headers) as client:
            client.open().wait_end()
            # The final chunk: a client can tell an end from a broken connection.
            assert client.complete
            assert not client.was_reset
            events += client.events
    return events


def test_no_event_is_lost(site: Site, channel: str) -> None:
    """Clients that come back often, while much is published, get each event exactly once."""
    with publishing(site, f"aged-{channel}"), ThreadPoolExecutor(CLIENTS) as pool:
        tasks = [pool.submit(follow, site, f"aged-{channel}") for _ in range(CLIENTS)]
        found = [task.result() for task in tasks]
    for events in found:
        kinds = [event.type for event in events if event.type.startswith("sse.")]
        assert kinds == ["sse.open"] * (1 + RENEWALS)
        numbers = [int(event.data.split()[0]) for event in events if event.type == "message"]
        # How many there are depends on the speed of the machine.
        assert len(numbers) > 100
        first = numbers[0]
        assert numbers == [(first + more) % 100 for more in range(len(numbers))]
    assert site.log().count('"reason": "age"') == CLIENTS * (1 + RENEWALS)
