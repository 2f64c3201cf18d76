"""Third-party clients on a channel with history: lost connections and resets."""

from collections.abc import Callable, Iterator
from typing import Final

import aiohttp
import httpx
import httpx_sse
import pytest
from aiohttp_sse_client2.client import EventSource
from flask import Flask
from playwright.sync_api import Browser

from flask_sse import history, sse
from tests.support import coroutines, servers
from tests.support.cutting_proxy import CuttingProxy
from tests.support.following import Publisher, check
from tests.support.other_clients import Follow, OtherClient, PageClient, node, page, python
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until

MakeApp = Callable[..., Flask]

pytestmark = pytest.mark.long

SETTINGS: Final = {"SSE_HISTORY": 100_000, "SSE_RETRY": 50}
PROGRAMS: Final[dict[str, Follow]] = {
    "eventsource": node("eventsource.mjs"),
    "eventsource-client": node("eventsource-client.mjs"),
    "launchdarkly-eventsource": node("launchdarkly-eventsource.mjs"),
    "httpx-sse": python("with_httpx_sse"),
    "requests-sse": python("with_requests_sse"),
    "launchdarkly-eventsource for Python": python("with_launchdarkly"),
    "aiohttp-sse-client2": python("with_aiohttp_sse_client2"),
}
PAGES: Final = {
    "Chromium": "native.html",
    "fetch-event-source": "fetch-event-source.html",
    "htmx 2": "htmx-2.html",
    "htmx 4": "htmx-4.html",
}
CLOSE_HIDDEN_TABS: Final = ("fetch-event-source", "htmx 4")


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a redis-server whose data these tests may delete."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def site(own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a site with history, and the pages."""
    settings = {"REDIS_URL": own_redis.url, **SETTINGS}
    folder = tmp_path_factory.mktemp("site")
    with servers.gunicorn(folder, app="tests.apps.clients:app", settings=settings) as site:
        yield site


@pytest.fixture
def app(make_app: MakeApp, own_redis: RedisServer) -> Flask:
    """Return the application that publishes."""
    return make_app(REDIS_URL=own_redis.url, **SETTINGS)


@pytest.fixture(params=[*PAGES, *PROGRAMS])
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of a client."""
    return str(request.param)


@pytest.fixture
def follow(name: str, request: pytest.FixtureRequest) -> Follow:
    """Return a function that starts that client."""
    if name in PROGRAMS:
        return PROGRAMS[name]
    return page(request.getfixturevalue("browser"), PAGES[name])


def numbers(client: OtherClient) -> list[int]:
    """Return the numbers that a client has received."""
    return [int(event.data) for event in client.events if event.type == "message"]


def count(client: OtherClient, type: str) -> int:
    """Return how many events of a type a client has received."""
    return sum(event.type == type for event in client.events)


def wait_position(client: OtherClient, app: Flask, channel: str) -> None:
    """Wait until a client has reached the end of the log."""
    with app.app_context():
        position = history.position(channel)
    wait_until(lambda: client.events[-1].id == position, f"{position} is reached")


def wait_more(client: OtherClient, number: int) -> None:
    """Wait until a client has received this many more events."""
    wanted = len(client.events) + number
    wait_until(lambda: len(client.events) >= wanted, f"{number} more events")


def test_a_client_that_is_cut(site: Site, app: Flask, channel: str, follow: Follow) -> None:
    """Cut twenty times under load, in any place, each has every event once and in order."""
    with CuttingProxy(site.port, 1) as proxy, follow(proxy.port, channel) as client:
        wait_until(lambda: client.events, "the stream begins")
        with Publisher(app, channel, 0.004) as publisher:
            for _ in range(20):
                publisher.wait(10)
                proxy.cut()
            publisher.wait(10)
            last = publisher.stop()
        wait_position(client, app, channel)
        check(client.events)
        assert numbers(client) == [*range(last + 1)]
        assert not count(client, "sse.reset")
        assert proxy.accepted > 20


def test_a_client_is_told_of_a_reset(
    site: Site, app: Flask, channel: str, follow: Follow, own_redis: RedisServer
) -> None:
    """The application gets `sse.reset` by its name, while connected and after reconnecting."""
    with CuttingProxy(site.port, 1) as proxy, follow(proxy.port, channel) as client:
        wait_until(lambda: client.events, "the stream begins")
        with Publisher(app, channel, 0.004) as publisher:
            publisher.wait(20)
            own_redis.admin.flushall()
            wait_until(lambda: count(client, "sse.reset") == 1, "the client is told")
            with proxy.refusing():
                own_redis.admin.flushall()
                publisher.wait(20)
            wait_until(lambda: count(client, "sse.reset") == 2, "the client is told again")
            publisher.wait(20)
            publisher.stop()
        wait_position(client, app, channel)
        check(client.events)
        assert count(client, "sse.reset") == 2


def test_cuts_before_the_last_byte_of_an_event(
    site: Site, app: Flask, channel: str, follow: Follow
) -> None:
    """A client drops what it has of an event that is not complete, and gets the event again."""
    with CuttingProxy(site.port, 1) as proxy, follow(proxy.port, channel) as client:
        for number in range(0, 6, 2):
            publish_and_cut(app, channel, proxy, client, number)
        assert numbers(client) == [*range(6)]


def test_what_fetch_event_source_loses_alone(
    site: Site, app: Flask, channel: str, browser: Browser
) -> None:
    """It loses an event if it has received the event's id before a cut, but not its end."""
    follow = page(browser, PAGES["fetch-event-source"], "alone")
    with CuttingProxy(site.port, 1) as proxy, follow(proxy.port, channel) as client:
        for number in range(0, 100, 2):
            publish_and_cut(app, channel, proxy, client, number)
            # Chromium may drop everything that came just before the cut, and then all is well.
            if number + 1 not in numbers(client):
                return
    raise AssertionError("nothing is lost")


def publish_and_cut(
    app: Flask, channel: str, proxy: CuttingProxy, client: OtherClient, number: int
) -> None:
    """Publish a number, the next one whose last byte is cut off, and wait for the client."""
    wait_until(lambda: client.events, "the stream begins")
    with app.app_context():
        sse.publish(number, channel=channel)
        wait_until(lambda: number in numbers(client), "the stream is live")
        epoch, offset, nonce = client.events[-1].id.split(".")
        frame = f"data:{number + 1}\nid:{epoch}.{int(offset) + 1}.{nonce}\n"
        with proxy.cutting(after=len(f"{len(frame) + 1:x}\r\n{frame}")):
            sse.publish(number + 1, channel=channel)
        wait_until(lambda: count(client, "sse.open") > proxy.cuts, "the client is back")
    wait_position(client, app, channel)


@pytest.mark.parametrize("name", CLOSE_HIDDEN_TABS, indirect=True)
def test_a_tab_that_is_hidden(
    site: Site, app: Flask, channel: str, browser: Browser, name: str
) -> None:
    """Its stream is closed, and when it is shown again, it gets the events that it missed."""
    with (
        CuttingProxy(site.port, 1) as proxy,
        PageClient(browser, proxy.port, PAGES[name], channel) as client,
        Publisher(app, channel, 0.004) as publisher,
    ):
        for _ in range(3):
            wait_more(client, 10)
            client.show(False)
            wait_until(lambda: not proxy.streams, "the stream is closed")
            publisher.wait(20)
            client.show(True)
        last = publisher.stop()
        wait_position(client, app, channel)
        check(client.events)
        assert numbers(client) == [*range(numbers(client)[0], last + 1)]
        assert not count(client, "sse.reset")


@pytest.mark.parametrize("name", ["htmx 2", "htmx 4"], indirect=True)
def test_htmx_reloads_after_a_reset(
    site: Site, app: Flask, channel: str, browser: Browser, name: str, own_redis: RedisServer
) -> None:
    """`hx-trigger` takes the name of the event, and what was published has been swapped in."""
    with PageClient(browser, site.port, PAGES[name], channel) as client, app.app_context():
        wait_until(lambda: client.events, "the stream begins")
        sse.publish(1, channel=channel)
        client.page.wait_for_function("document.querySelector('ol').innerText == '1'")
        assert client.page.locator("p").inner_text() == "rendered"
        own_redis.admin.flushall()
        sse.publish(2, channel=channel)
        client.page.wait_for_function("/^fetched/.test(document.querySelector('p').innerText)")


def test_a_read_timeout_of_httpx(site: Site, channel: str) -> None:
    """By default, it gives up between two keep-alive comments."""
    url = f"http://{LOOPBACK}:{site.port}/stream?channel={channel}"
    with (
        httpx.Client() as client,
        httpx_sse.connect_sse(client, "GET", url) as source,
        pytest.raises(httpx.ReadTimeout),
    ):
        list(source.iter_sse())
    assert client.timeout.read == 5


def test_the_total_timeout_of_aiohttp(site: Site, app: Flask, channel: str) -> None:
    """It ends a stream on which events arrive, with an error that is not one of aiohttp's."""
    url = f"http://{LOOPBACK}:{site.port}/stream?channel={channel}"

    async def follow() -> None:
        timeout = aiohttp.ClientTimeout(total=2)
        async with EventSource(url, timeout=timeout) as source:
            async for event in source:
                assert event.type in {"sse.open", None}

    with Publisher(app, channel, 0.1) as publisher, pytest.raises(TimeoutError) as caught:
        coroutines.run(follow())
    publisher.stop()
    assert not isinstance(caught.value, aiohttp.ClientError)
    assert aiohttp.client.DEFAULT_TIMEOUT.total == 5 * 60
