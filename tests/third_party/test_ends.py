"""Third-party clients on a stream that ends: `sse.end`, and 204 when they connect again."""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final
from urllib.request import urlopen

import aiohttp
import httpx
import httpx_sse
import pytest
import requests
import requests_sse
from aiohttp_sse_client2.client import EventSource
from flask import Flask
from playwright.sync_api import Browser

from flask_sse import sse, streams
from tests.support import coroutines, servers
from tests.support.client import StreamClient
from tests.support.other_clients import Follow, node, page, program, python
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import PATIENCE, wait_until

MakeApp = Callable[..., Flask]

pytestmark = pytest.mark.long

SETTINGS: Final = {"SSE_HISTORY": 100, "SSE_RETRY": 50}
PATH: Final = "/streams"
ONCE: Final = "/stream-once"
PROGRAMS: Final[dict[str, Callable[[str], Follow]]] = {
    "eventsource": partial(node, "eventsource.mjs"),
    "eventsource-client": partial(node, "eventsource-client.mjs"),
    "launchdarkly-eventsource": partial(node, "launchdarkly-eventsource.mjs"),
    "httpx-sse": partial(python, "with_httpx_sse"),
    "requests-sse": partial(python, "with_requests_sse"),
    "launchdarkly-eventsource for Python": partial(python, "with_launchdarkly"),
    "aiohttp-sse-client2": partial(python, "with_aiohttp_sse_client2"),
}
PAGES: Final = {"Chromium": "native.html", "fetch-event-source": "fetch-event-source.html"}
HTMX: Final = {"htmx 2": "htmx-2-end.html", "htmx 4": "htmx-4-end.html"}
ASK_AGAIN: Final = {"eventsource-client", *HTMX}
"""The clients that take 403 for a failure that will pass."""


@pytest.fixture(scope="module")
def site(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a site with history, and the pages."""
    settings = {"REDIS_URL": shared_redis.url, **SETTINGS}
    folder = tmp_path_factory.mktemp("site")
    with servers.gunicorn(folder, app="tests.apps.clients:app", settings=settings) as site:
        yield site


@pytest.fixture
def app(make_app: MakeApp, shared_redis: RedisServer) -> Flask:
    """Return the application that publishes."""
    return make_app(REDIS_URL=shared_redis.url, **SETTINGS)


def statuses(site: Site, channel: str) -> list[int]:
    """Return the status of each answer to a request for a stream of the channel."""
    url = f"http://{LOOPBACK}:{site.port}/statuses?channel={channel}"
    with urlopen(url, timeout=PATIENCE) as answer:
        found: list[int] = json.load(answer)
        return found


def publish_and_end(app: Flask, channel: str) -> None:
    """Publish three numbers, and end the channel."""
    with app.app_context():
        for number in range(3):
            sse.publish(number, channel=channel)
        streams.end(channel)


@pytest.mark.parametrize("name", [*PAGES, *PROGRAMS])
def test_a_client_stops_asking(
    site: Site, app: Flask, channel: str, name: str, request: pytest.FixtureRequest
) -> None:
    """It gets every event and the end, is answered 204 once, and does not connect again."""
    with _following(name, PATH, request)(site.port, channel) as client:
        wait_until(lambda: client.events, "the stream begins")
        publish_and_end(app, channel)
        wait_until(lambda: client.has_stopped, "the client stops")
        received = [(event.type, event.data) for event in client.events if event.type != "sse.open"]
        assert received[:3] == [("message", str(number)) for number in range(3)]
        [(last, data)] = received[3:]
        assert (last, json.loads(data)) == ("sse.end", {"channel": channel})
        assert statuses(site, channel) == [200, 204]


@pytest.mark.parametrize("name", [*PAGES, *PROGRAMS, *HTMX])
def test_a_client_that_is_disconnected(
    site: Site, app: Flask, channel: str, name: str, request: pytest.FixtureRequest
) -> None:
    """It connects again, is refused with 403, and gives up, or asks again and again."""
    with _following(name, ONCE, request)(site.port, channel) as client, app.app_context():
        wait_until(lambda: client.events or name in HTMX, "the stream begins")
        sse.publish(1, channel=channel)
        wait_until(lambda: "1" in [event.data for event in client.events], "the stream is live")
        assert streams.disconnect(client=channel) == 1
        if name in ASK_AGAIN:
            wait_until(lambda: statuses(site, channel).count(403) >= 3, "the client asks again")
        else:
            wait_until(lambda: client.has_stopped, "the client stops")
            assert statuses(site, channel) == [200, 403]


def _following(name: str, path: str, request: pytest.FixtureRequest) -> Follow:
    if name in PROGRAMS:
        return PROGRAMS[name](path)
    view = {PATH: "open_stream", ONCE: "open_once"}[path]
    return page(request.getfixturevalue("browser"), {**PAGES, **HTMX}[name], f"view={view}")


@pytest.mark.parametrize("name", HTMX)
def test_htmx_stops_at_the_event(
    site: Site, app: Flask, channel: str, browser: Browser, name: str
) -> None:
    """With the attribute for it, `sse.end` closes the stream, which is not asked for again."""
    with page(browser, HTMX[name], "view=open_stream")(site.port, channel) as client:
        wait_until(lambda: statuses(site, channel), "the stream begins")
        publish_and_end(app, channel)
        wait_until(lambda: client.has_stopped, "the client stops")
        assert [event.data for event in client.events if event.type == "message"] == ["0", "1", "2"]
        assert statuses(site, channel) == [200]


@pytest.mark.parametrize("name", HTMX)
def test_htmx_asks_again(site: Site, app: Flask, channel: str, browser: Browser, name: str) -> None:
    """Without the attribute, it takes 204 for a failure, and asks again and again."""
    with page(browser, HTMX[name], "view=open_stream&alone")(site.port, channel) as client:
        wait_until(lambda: statuses(site, channel), "the stream begins")
        publish_and_end(app, channel)
        wait_until(lambda: statuses(site, channel).count(204) >= 3, "the client asks again")
        assert not client.has_stopped


def test_launchdarkly_for_python_asks_again(site: Site, app: Flask, channel: str) -> None:
    """With the strategy that continues after errors, 204 is an error like others."""
    module = ("-m", "tests.clients.with_launchdarkly", "alone")
    with program(sys.executable, *module, path=PATH)(site.port, channel) as client:
        wait_until(lambda: client.events, "the stream begins")
        publish_and_end(app, channel)
        wait_until(lambda: statuses(site, channel).count(204) >= 3, "the client asks again")
        assert not client.has_stopped


def test_what_the_python_clients_raise(site: Site, app: Flask, channel: str) -> None:
    """Where the programs of the tests look at 204, the clients would raise these errors."""
    publish_and_end(app, channel)
    with StreamClient(site.port, channel, path=PATH) as client:
        client.wait_end()
    headers = {"Last-Event-ID": client.events[-1].id}
    url = f"http://{LOOPBACK}:{site.port}{PATH}?channel={channel}"
    with (
        httpx.Client() as http,
        httpx_sse.connect_sse(http, "GET", url, headers=headers) as source,
        pytest.raises(httpx_sse.SSEError),
    ):
        list(source.iter_sse())
    with (
        pytest.raises(requests_sse.InvalidStatusCodeError) as refused,
        requests.Session() as session,
        requests_sse.EventSource(url, session=session, headers=headers),
    ):
        pass
    assert refused.value.status_code == 204
    # It leaves its connection open.
    assert refused.value.response is not None
    refused.value.response.close()

    async def follow() -> None:
        async with (
            aiohttp.ClientSession() as session,
            EventSource(url, session=session, headers=headers),
        ):
            pass

    with pytest.raises(ConnectionAbortedError):
        coroutines.run(follow())
