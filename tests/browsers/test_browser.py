"""The quickstart in a real browser, exactly as in the documentation."""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Browser, Dialog, Page

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.servers import QUICKSTART, Site
from tests.support.waiting import wait_until

# Notes what the page's own EventSource goes through, before the page makes it.
SPY = """
window.seen = [];
const Real = EventSource;
window.EventSource = function (url) {
  const source = new Real(url);
  for (const name of ["open", "error", "greeting"])
    source.addEventListener(name, event => seen.push(event.type));
  return source;
};
"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page that notes its events, and the alerts that it raises."""
    page = browser.new_page()
    page.add_init_script(SPY)
    yield page
    page.close()


def alerts_of(page: Page) -> list[str]:
    """Return the list to which the page's alerts are added, and accept them."""
    alerts: list[str] = []

    def accept(dialog: Dialog) -> None:
        alerts.append(dialog.message)
        dialog.accept()

    page.on("dialog", accept)
    return alerts


@pytest.mark.parametrize("kind", ["redis", pytest.param("memory", marks=pytest.mark.long)])
def test_the_quickstart(page: Page, kind: str, shared_redis: RedisServer, tmp_path: Path) -> None:
    """`open` fires without an event, `/hello` brings the alert, a restart is survived."""
    environment = {"REDIS_URL": "memory://" if kind == "memory" else shared_redis.url}
    alerts = alerts_of(page)

    def serve(port: int | None = None) -> AbstractContextManager[Site]:
        return servers.gunicorn(
            tmp_path, app="demo:app", cwd=QUICKSTART, port=port, environment=environment
        )

    with serve() as site:
        page.goto(f"http://{LOOPBACK}:{site.port}/")
        page.wait_for_function("seen.includes('open')")
        assert page.evaluate("seen") == ["open"]
        assert site.get("/hello") == "Message sent!"
        page.wait_for_function("seen.includes('greeting')")
        assert alerts == ["The server says Hello!"]
    page.wait_for_function("seen.includes('error')")
    with serve(site.port) as site:
        page.wait_for_function("seen.lastIndexOf('open') > seen.indexOf('error')")
        assert site.get("/hello") == "Message sent!"
        page.wait_for_function("seen.at(-1) == 'greeting'")
    assert alerts[-1] == "The server says Hello!"
    assert "Failed to connect to event stream. Is Redis running?" in alerts


@pytest.mark.parametrize("worker", servers.MOST_USED)
def test_a_reload_of_the_server(
    worker: str, page: Page, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """At `SIGHUP` the browser moves on to the new worker by itself."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_RETRY": 200}
    with servers.gunicorn(tmp_path, *servers.WORKERS[worker], settings=settings) as site:
        old = site.worker()
        page.goto(f"http://{LOOPBACK}:{site.port}/")
        page.evaluate("() => { window.source = new EventSource('/stream?channel=reload') }")
        page.evaluate("() => { source.onmessage = event => seen.push(event.data) }")
        page.wait_for_function("seen.includes('open')")
        site.process.send(signal.SIGHUP)
        page.wait_for_function(
            "seen.includes('error') && seen.lastIndexOf('open') > seen.indexOf('error')"
        )
        wait_until(lambda: not old.is_running(), "the old worker has gone")
        shared_redis.wait_listeners(1, "reload")
        assert site.publish("from the new one", "reload") == 1
        page.wait_for_function("seen.includes('from the new one')")


@pytest.mark.long
def test_a_redis_that_answers_too_late(
    page: Page, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A page whose stream can't be opened in time fires `open` and `error`, and misses nothing."""
    settings = {"REDIS_URL": redis_server.url, "SSE_RETRY": 200, "SSE_HISTORY": 100}
    with servers.gunicorn(tmp_path, settings=settings) as site:
        page.goto(f"http://{LOOPBACK}:{site.port}/")
        page.evaluate("""() => {
          window.source = new EventSource('/stream?channel=late');
          source.onmessage = event => seen.push(event.data);
          source.addEventListener('sse.reset', event => seen.push(event.type));
        }""")
        page.wait_for_function("seen.includes('open')")
        assert site.publish("first", "late") == 1
        page.wait_for_function("seen.includes('first')")
        redis_server.freeze()
        try:
            site.process.send(signal.SIGHUP)
            page.wait_for_function("seen.filter(one => one == 'error').length > 1")
        finally:
            redis_server.thaw()
        redis_server.wait_listeners(1, "late")
        assert site.publish("second", "late") == 1
        page.wait_for_function("seen.includes('second')")
        seen: list[str] = page.evaluate("seen")
        rejected = ["open", "error"] * (seen.count("error") - 1)
        assert seen == ["open", "first", "error", *rejected, "open", "second"]


def test_types_that_a_browser_uses_itself(
    page: Page, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """Events of the types `error` and `open` call `onerror` and `onopen`, on an open stream."""
    with servers.gunicorn(tmp_path, settings={"REDIS_URL": shared_redis.url}) as site:
        page.goto(f"http://{LOOPBACK}:{site.port}/")
        page.evaluate("""() => {
          window.called = [];
          window.source = new EventSource("/stream?channel=types");
          for (const name of ["onopen", "onerror", "onmessage"]) {
            source[name] = (event) => {
              called.push([name, event.data ?? null, event instanceof MessageEvent]);
            };
          }
        }""")
        page.wait_for_function("called.length === 1")
        shared_redis.wait_listeners(1, "types")
        for name in ("error", "open", "message"):
            shared_redis.admin.publish("types", json.dumps({"data": "x", "type": name}))
        page.wait_for_function("called.length === 4")
        assert page.evaluate("called") == [
            ["onopen", None, False],
            ["onerror", "x", True],
            ["onopen", "x", True],
            ["onmessage", "x", True],
        ]
        assert page.evaluate("source.readyState") == 1


@pytest.mark.parametrize(
    "options",
    [("--worker-class", "gevent"), pytest.param(("--workers", "1"), marks=pytest.mark.long)],
)
def test_the_command_lines_of_the_documentation(options: Sequence[str], tmp_path: Path) -> None:
    """`gunicorn sse:app` and a Redis at its usual port: that is all, with gevent or without."""
    server = RedisServer(tmp_path, port=6379)
    with ExitStack() as stack:
        if not _answers(server):
            stack.callback(server.stop)
            server.start()
        site = stack.enter_context(
            servers.gunicorn(tmp_path, *options, app="sse:app", cwd=QUICKSTART)
        )
        with StreamClient(site.port).open() as client:
            assert site.get("/hello") == "Message sent!"
            [event] = client.wait_events(1)
            assert (event.type, event.data) == ("greeting", '{"message": "Hello!"}')


def test_a_browser_comes_back_when_redis_is_back(
    page: Page, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A page that is opened while Redis is unavailable gets `error`, and later its events."""
    redis_server.stop()
    settings = {"REDIS_URL": redis_server.url, "SSE_RETRY": 500}
    with servers.gunicorn(tmp_path, settings=settings) as site:
        page.goto(f"http://{LOOPBACK}:{site.port}/")
        page.evaluate("window.source = new EventSource('/stream')")
        page.wait_for_function("seen.includes('error')")
        redis_server.start()
        redis_server.wait_listeners(1)
        page.evaluate("() => { source.onmessage = event => seen.push(event.data) }")
        wait_until(lambda: site.publish("back") == 1, "published")
        page.wait_for_function("seen.includes('back')")


def _answers(server: RedisServer) -> bool:
    try:
        return bool(server.admin.ping())
    except redis.ConnectionError:
        return False
