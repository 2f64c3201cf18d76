"""The end of a channel in a real browser, which then does not come back."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page, Response

from tests.support import servers
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.servers import Site

APP: Final = "tests.apps.ending:app"
OPEN: Final = """(url) => {
  window.seen = [];
  window.source = new EventSource(url);
  for (const name of ["sse.open", "message", "sse.end", "error"]) {
    source.addEventListener(name, (event) => {
      seen.push(name === "message" ? event.data : name);
    });
  }
}"""
CLOSED: Final = "source.readyState === EventSource.CLOSED"


@pytest.fixture(params=servers.MOST_USED)
def site(
    request: pytest.FixtureRequest, shared_redis: RedisServer, tmp_path: Path
) -> Iterator[Site]:
    """Return the site under each worker."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_HISTORY": 100, "SSE_RETRY": 50}
    options = servers.WORKERS[request.param]
    with servers.gunicorn(tmp_path, *options, app=APP, settings=settings) as site:
        yield site


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """Return a page of the site."""
    page = browser.new_page()
    page.goto(f"http://{LOOPBACK}:{site.port}/")
    yield page
    page.close()


@pytest.mark.parametrize("view", ["/stream?channel=", "/events?name="])
def test_the_end(
    page: Page, site: Site, shared_redis: RedisServer, channel: str, view: str
) -> None:
    """The browser asks once more, and then never again; a reloaded page gets all of it."""
    url = f"{view}{channel}"
    statuses: list[int] = []

    def note(response: Response) -> None:
        if response.url.endswith(url):
            statuses.append(response.status)

    page.on("response", note)
    page.evaluate(OPEN, url)
    page.wait_for_function("seen.includes('sse.open')")
    site.publish("a", channel)
    site.get(f"/end?channel={channel}")
    site.publish("for others", channel)
    page.wait_for_function(CLOSED)
    # The browser reports the end of the connection, and that it gives up.
    assert page.evaluate("seen") == ["sse.open", "a", "sse.end", "error", "error"]
    assert statuses == [200, 204]
    shared_redis.wait_listeners(0, channel)
    site.get(f"/end?channel={channel}")
    page.reload()
    page.evaluate(OPEN, url)
    page.wait_for_function(CLOSED)
    assert page.evaluate("seen") == ["sse.open", "for others", "sse.end", "error", "error"]
    assert statuses == [200, 204] * 2


def test_the_end_of_one_channel_after_the_other(page: Page, site: Site, channel: str) -> None:
    """The stream goes on without a channel that has ended, also when the server is replaced."""
    other = f"{channel}-other"
    url = f"/events?name={channel}&name={other}"
    page.evaluate(OPEN, url)
    page.wait_for_function("seen.includes('sse.open')")
    site.publish("a", channel)
    site.get(f"/end?channel={channel}")
    site.publish("for others", channel)
    site.publish("b", other)
    page.wait_for_function("seen.includes('b')")
    assert page.evaluate("seen") == ["sse.open", "a", "sse.end", "b"]
    site.process.send(signal.SIGHUP)
    page.wait_for_function("seen.includes('error')")
    site.publish("c", other)
    site.get(f"/end?channel={other}")
    page.wait_for_function(CLOSED)
    seen: list[str] = [one for one in page.evaluate("seen") if one not in ("error", "sse.open")]
    assert seen == ["a", "sse.end", "b", "c", "sse.end"]
