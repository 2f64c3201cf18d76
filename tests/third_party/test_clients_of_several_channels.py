"""Third-party clients of streams with three channels, whose connections are cut under load."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest
from flask import Flask

from tests.support import servers
from tests.support.cutting_proxy import CuttingProxy
from tests.support.following import Publisher
from tests.support.other_clients import Follow, OtherClient, page
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until
from tests.third_party.test_history_clients import PAGES, PROGRAMS, SETTINGS, numbers

MakeApp = Callable[..., Flask]

pytestmark = pytest.mark.long

CUTS: Final = 15
EACH: Final = 1_000_000
"""The channels have different numbers: 0, 1, 2 ...; 1,000,000, 1,000,001 ... and so on."""


@pytest.fixture(scope="module")
def site(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a site with history and two workers."""
    settings = {"REDIS_URL": shared_redis.url, **SETTINGS}
    folder = tmp_path_factory.mktemp("site")
    options = ("--worker-class", "gevent", "--workers", "2")
    with servers.gunicorn(
        folder, *options, app="tests.apps.clients:app", settings=settings
    ) as site:
        yield site


@pytest.fixture
def app(make_app: MakeApp, shared_redis: RedisServer) -> Flask:
    """Return the application that publishes."""
    return make_app(REDIS_URL=shared_redis.url, **SETTINGS)


@pytest.fixture(params=[*PAGES, *PROGRAMS])
def follow(request: pytest.FixtureRequest) -> Follow:
    """Return a function that starts a client."""
    if request.param in PROGRAMS:
        return PROGRAMS[request.param]
    return page(request.getfixturevalue("browser"), PAGES[request.param])


def test_a_client_that_is_cut(site: Site, app: Flask, channel: str, follow: Follow) -> None:
    """It has every event of each channel once and in order."""
    channels = [f"{channel}-{letter}" for letter in "abc"]
    with CuttingProxy(site.port, 1) as proxy, follow(proxy.port, channels) as client:
        wait_until(lambda: client.events, "the stream begins")
        with ExitStack() as stack:
            publishers = [
                stack.enter_context(Publisher(app, name, 0.012, start=index * EACH))
                for index, name in enumerate(channels)
            ]
            for _ in range(CUTS):
                publishers[0].wait(4)
                proxy.cut()
            publishers[0].wait(4)
            ends = [publisher.stop() for publisher in publishers]
        wait_until(lambda: not {*ends} - {*numbers(client)}, "the last events have come")
        for index, end in enumerate(ends):
            assert of_channel(client, index) == [*range(index * EACH, end + 1)]
        assert {event.type for event in client.events} == {"message", "sse.open"}
        assert proxy.accepted > CUTS


def of_channel(client: OtherClient, index: int) -> list[int]:
    """Return the numbers of one channel that a client has received."""
    return [number for number in numbers(client) if number // EACH == index]
