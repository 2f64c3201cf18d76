"""The examples for pages run in a real Chromium, with the real libraries."""

import re
import shutil
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import trustme
from playwright.sync_api import Browser, Page, Route

from tests.support.chromium import with_page_cache
from tests.support.other_clients import NODE
from tests.support.processes import LOOPBACK, Process, free_port
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until

from . import typescript
from .blocks import read_blocks
from .conftest import BuiltSite
from .running import runs, serving

# Has a page for each template, and the service worker where its scope is the whole site.
_PAGES: Final = """
from flask import render_template, send_from_directory
from notifications import app

@app.get("/<name>.html")
def page(name):
    return render_template(f"{name}.html")

@app.get("/service_worker.js")
def service_worker():
    return send_from_directory(app.static_folder, "service_worker.js")
"""
# With history, and a page that follows the stream.
_FOLLOWING: Final = """
from pages import app

app.config["SSE_HISTORY"] = 100

@app.get("/following")
def following():
    return '''<!doctype html><ul></ul><script type="module">
    import { follow } from "/static/follow.js";
    const list = document.querySelector("ul");
    const notification = ({ data }) => {
      const textContent = JSON.parse(data).text;
      list.append(Object.assign(document.createElement("li"), { textContent }));
    };
    window.stop = follow("/stream", { notification }, { silence: 60 });
    </script>'''
"""
_SPY: Final = """
window.sources = [];
window.EventSource = class extends EventSource {
  constructor(...parameters) {
    super(...parameters);
    sources.push(this);
  }
};
"""
_SHOW: Final = """visible => {
  Object.defineProperty(document, "hidden", { value: !visible, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
_OPEN: Final = "sources.filter((source) => source.readyState === EventSource.OPEN).length"
_ITEMS: Final = "[...document.querySelectorAll('li')].map((item) => item.textContent).join()"
_MAIN: Final = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Notifications } from "./Notifications";

const root = createRoot(document.getElementById("root")!);
root.render(<StrictMode><Notifications url="/stream" /></StrictMode>);
(window as any).unmount = () => root.unmount();
"""
# Over HTTP/2, Vite needs what the example shows.
_VITE: Final = """
import { readFileSync } from "node:fs";
import config from "./vite.config.js";

const pem = readFileSync("server.pem");
config.server.https = { key: pem, cert: pem };
export default config;
"""


@pytest.fixture
def place(folder: Path) -> Path:
    """Return the folder of the examples for pages."""
    (folder / "browser" / "pages.py").write_text(_PAGES)
    return folder / "browser"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page that remembers the event sources that it makes."""
    page = browser.new_page()
    page.add_init_script(_SPY)
    yield page
    page.close()


@contextmanager
def _serving(place: Path, app: str = "pages", **variables: str) -> Generator[tuple[str, Process]]:
    port = free_port()
    command = f"exec flask --app '{app}' run --port {port}"
    with serving(command, port, place, **variables) as process:
        yield f"http://{LOOPBACK}:{port}", process


def _post(url: str, text: str) -> None:
    request = Request(url, urlencode({"text": text}).encode())
    with urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 204


def _wait_items(page: Page, items: str) -> None:
    page.wait_for_function(f"{_ITEMS} === {items!r}")


@runs("browser/notifications.py", "browser/templates/list.html")
def test_list(place: Path, page: Page) -> None:
    """The page shows existing and new entries; nothing becomes HTML."""
    with _serving(place) as (url, _):
        _post(f"{url}/notifications", "first")
        page.goto(url)
        _wait_items(page, "first")
        _post(f"{url}/notifications", "<b>second</b>")
        _wait_items(page, "first,<b>second</b>")
        # The state contains events from the time without a connection.
        page.route("**/stream", lambda route: route.abort())
        page.evaluate("sources[0].dispatchEvent(new Event('open'))")
        _wait_items(page, "first,<b>second</b>")


@runs("browser/static/follow.js", "browser/templates/visible.html")
def test_closing(place: Path, page: Page) -> None:
    """It tries again after an error, and has no stream while the tab is hidden."""
    answers = [503, 404]

    def refuse(route: Route) -> None:
        if answers:
            route.fulfill(status=answers.pop(0), body="")
        else:
            route.continue_()

    (place / "following.py").write_text(_FOLLOWING)
    with _serving(place, "following") as (url, _):
        page.route("**/stream", refuse)
        page.goto(f"{url}/visible.html")
        page.wait_for_function(f"{_OPEN} === 1")
        assert answers == []
        assert page.evaluate("sources.length") == 3
        _post(f"{url}/notifications", "first")
        _wait_items(page, "first")
        page.evaluate(_SHOW, False)
        assert page.evaluate(_OPEN) == 0
        _post(f"{url}/notifications", "second")
        page.evaluate(_SHOW, True)
        _wait_items(page, "first,second")


def test_watchdog(place: Path, page: Page) -> None:
    """It connects again after a silence, which a heartbeat or any other event breaks."""
    (place / "following.py").write_text(_FOLLOWING)
    with _serving(place, "following") as (url, _):
        page.clock.install()
        page.goto(f"{url}/following")
        page.wait_for_function(f"{_OPEN} === 1")
        heartbeat = "sources[0].dispatchEvent(new MessageEvent('heartbeat'))"
        for _ in range(3):
            page.clock.fast_forward(40_000)
            page.evaluate(heartbeat)
        assert page.evaluate("sources.length") == 1
        _post(f"{url}/notifications", "first")
        _wait_items(page, "first")
        # The browser still believes that it is connected.
        page.clock.fast_forward(62_000)
        page.wait_for_function(f"sources.length === 2 && {_OPEN} === 1")
        _post(f"{url}/notifications", "second")
        _wait_items(page, "first,second")
        assert page.evaluate("stop()")
        page.clock.fast_forward(200_000)
        assert page.evaluate(f"[sources.length, {_OPEN}]") == [2, 0]


def test_back_to_a_page(place: Path, browser: Browser) -> None:
    """A page from the back/forward cache connects again, and gets the events that it missed."""
    (place / "following.py").write_text(_FOLLOWING)
    with _serving(place, "following") as (url, _), with_page_cache(browser) as caching:
        page = caching.new_page()
        page.add_init_script(_SPY)
        page.goto(f"{url}/following")
        page.wait_for_function(f"{_OPEN} === 1")
        page.evaluate("() => { window.isRestored = true }")
        page.goto(f"{url}/notifications")
        _post(f"{url}/notifications", "first")
        page.go_back(wait_until="commit")
        _wait_items(page, "first")
        _post(f"{url}/notifications", "second")
        _wait_items(page, "first,second")
        assert page.evaluate("isRestored && sources.length") == 2


@runs("browser/cors.py", "browser: javascript")
def test_cors(site: BuiltSite, place: Path, page: Page, shared_redis: RedisServer) -> None:
    """A page of another origin receives events with cookies, but not without or elsewhere."""
    (script,) = (
        block.text
        for block in read_blocks(site.doctrees)
        if (block.page, block.language, block.file) == ("browser", "javascript", "")
    )
    path = place / "cors.py"
    api = f'cors:create_app("{shared_redis.url}")'
    with ExitStack() as stack:
        allowed, _ = stack.enter_context(_serving(place))
        path.write_text(path.read_text().replace("https://app.example.org", allowed))
        url, _ = stack.enter_context(_serving(place, api))
        script = script.replace("https://api.example.org", url)
        page.goto(f"{url}/login")
        page.goto(f"{allowed}/notifications")
        page.evaluate(script)
        page.wait_for_function(f"{_OPEN} === 1")
        page.evaluate("() => { sources[0].onmessage = (event) => { window.got = event.data } }")
        # redis-py leaves some types out.
        shared_redis.admin.publish("sse", '{"data": "x"}')  # pyright: ignore[reportUnknownMemberType]
        page.wait_for_function("window.got === 'x'")
        page.evaluate(script.replace(", { withCredentials: true }", ""))
        page.wait_for_function("sources[1].readyState === EventSource.CLOSED")
        page.goto(f"{allowed.replace(LOOPBACK, 'localhost')}/notifications")
        page.evaluate(script)
        page.wait_for_function("sources[0].readyState === EventSource.CLOSED")


@runs("browser/static/service_worker.js")
def test_service_worker(place: Path, page: Page) -> None:
    """It answers other requests, and leaves the stream alone."""
    by_worker: dict[str, bool] = {}
    page.on(
        "response",
        lambda response: by_worker.update(
            {response.url.rpartition("/")[2]: response.from_service_worker}
        ),
    )
    with _serving(place) as (url, _):
        page.goto(f"{url}/list.html")
        page.evaluate("navigator.serviceWorker.register('/service_worker.js')")
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        page.goto(f"{url}/list.html")
        page.wait_for_function(f"{_OPEN} === 1")
        _post(f"{url}/notifications", "first")
        _wait_items(page, "first")
        page.wait_for_function("navigator.serviceWorker.controller !== null")
        wait_until(lambda: "notifications" in by_worker, "the state is fetched")
        assert by_worker["list.html"]
        assert not by_worker["stream"]


@runs("browser/static/shared_worker.js", "browser/templates/shared.html")
def test_shared_worker(place: Path, browser: Browser) -> None:
    """Several tabs show the events of one stream, which ends with the last tab."""
    with _serving(place) as (url, process), browser.new_context() as context:
        pages = [context.new_page() for _ in range(3)]
        for page in pages:
            page.goto(f"{url}/shared.html")
        wait_until(lambda: process.log.read_text().count("GET /stream") == 1, "there is a stream")
        number = 0
        while not all(page.evaluate(_ITEMS) for page in pages):
            number += 1
            _post(f"{url}/notifications", str(number))
            pages[0].wait_for_timeout(100)
        pages.pop().close()
        _post(f"{url}/notifications", "last")
        for page in pages:
            page.wait_for_function(f"{_ITEMS}.endsWith('last')")
        assert process.log.read_text().count("GET /stream") == 1


_LIBRARIES: Final = {
    "htmx_2": {
        "htmx.js": "htmx-ext-sse/node_modules/htmx.org/dist/htmx.js",
        "sse.js": "htmx-ext-sse/sse.js",
    },
    "htmx_4": {"htmx.js": "htmx.org/dist/htmx.js", "hx-sse.js": "htmx.org/dist/ext/hx-sse.js"},
    "turbo": {"turbo.js": "@hotwired/turbo/dist/turbo.es2017-esm.js"},
}


@runs(
    "browser/fragments.py",
    "browser/templates/row.html",
    "browser/templates/row_for_turbo.html",
    *(f"browser/templates/{name}.html" for name in _LIBRARIES),
)
@pytest.mark.long
@pytest.mark.parametrize("name", _LIBRARIES)
def test_fragments(place: Path, page: Page, shared_redis: RedisServer, name: str) -> None:
    """Rows from the server are added to the page, in order, and escaped."""
    for target, source in _LIBRARIES[name].items():
        shutil.copy(typescript.MODULES / source, place / "static" / target)
    with _serving(place, "fragments") as (url, _):
        page.goto(f"{url}/{name}")
        channel = {"htmx_2": "sse", "htmx_4": "htmx-4", "turbo": "turbo"}[name]
        shared_redis.wait_listeners(1, channel)
        for text in ("first", "<b>second</b>"):
            _post(f"{url}/rows", text)
        _wait_items(page, "first,<b>second</b>")


@pytest.fixture
def sources(place: Path) -> Path:
    """Return a folder in which TypeScript finds the packages from npm."""
    typescript.link_packages(place)
    (place / "main.tsx").write_text(_MAIN)
    return place


@runs("browser/events.ts", "browser/Notifications.tsx")
@pytest.mark.long
def test_react(sources: Path, page: Page, shared_redis: RedisServer) -> None:
    """The component has one stream, also in strict mode, and none after it is unmounted."""
    typescript.check(sources, "main.tsx")
    typescript.bundle(sources, "main.tsx")
    (sources / "templates" / "react.html").write_text(
        '<!doctype html><div id="root"></div><script src="/static/main.js"></script>'
    )
    with _serving(sources) as (url, _):
        page.goto(f"{url}/react.html")
        page.wait_for_function(f"{_OPEN} === 1")
        # In strict mode, React has mounted it twice.
        assert page.evaluate("sources.length") == 2
        for text in ("first", "second"):
            _post(f"{url}/notifications", text)
        _wait_items(page, "first,second")
        page.evaluate("unmount()")
        page.wait_for_function("sources.every(({ readyState }) => readyState === 2)")


@pytest.mark.long
def test_types_of_events(sources: Path) -> None:
    """A type that does not exist is refused, and so is data of another type."""
    (sources / "wrong.ts").write_text(
        'import { listen } from "./events";\n'
        'const source = new EventSource("/stream");\n'
        'listen(source, "greeting", () => {});\n'
        'listen(source, "progress", ({ text }) => console.log(text));\n'
    )
    with pytest.raises(subprocess.CalledProcessError) as caught:
        typescript.check(sources, "wrong.ts")
    assert re.findall(r"wrong\.ts\((\d),", caught.value.stdout) == ["3", "4"]


@runs("browser/vite.config.js")
@pytest.mark.long
def test_vite(sources: Path, browser: Browser, shared_redis: RedisServer) -> None:
    """Its proxy closes the streams of a page that has left."""
    trustme.CA().issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(
        sources / "server.pem"
    )
    (sources / "index.html").write_text("<!doctype html><title>Vite</title>")
    (sources / "https.config.js").write_text(_VITE)
    with _serving(sources) as (url, _):
        config = sources / "vite.config.js"
        config.write_text(config.read_text().replace("http://127.0.0.1:5000", url))
        port = free_port()
        vite = "node_modules/vite/bin/vite.js --config https.config.js --strictPort"
        command = f"exec {NODE} {vite} --host {LOOPBACK} --port {port}"
        with (
            serving(command, port, sources),
            browser.new_context(ignore_https_errors=True) as context,
        ):
            page = context.new_page()
            page.goto(f"https://{LOOPBACK}:{port}/")
            page.evaluate(
                """() => new Promise((resolve) => {
                  window.source = new EventSource("/stream");
                  source.onopen = resolve;
                })"""
            )
            shared_redis.wait_listeners(1)
            page.close()
            shared_redis.wait_listeners(0, seconds=30)


@runs("browser/static/bearer.js", "browser/bearer.py")
@pytest.mark.long
def test_bearer(place: Path, page: Page, shared_redis: RedisServer) -> None:
    """A client with the token receives events; another is refused, and does not try again."""
    library = "@microsoft/fetch-event-source"
    shutil.copytree(typescript.MODULES / library / "lib" / "esm", place / "static" / "library")
    imports = f'{{"imports": {{"{library}": "/static/library/fetch.js", '
    imports += '"/static/library/parse": "/static/library/parse.js"}}'
    html = f'<!doctype html><script type="importmap">{imports}</script>'
    page.route("**/page", lambda route: route.fulfill(body=html, content_type="text/html"))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    follow = """async (token) => {
      const { follow } = await import("/static/bearer.js");
      window.got = [];
      window.stop = follow("/stream", token, (event) => got.push(event.data));
    }"""
    with _serving(place, "bearer", STREAM_TOKEN="secret") as (url, _):
        page.goto(f"{url}/page")
        page.evaluate(follow, "wrong")
        page.wait_for_timeout(2000)  # it would have tried again after one second
        assert requests.count(f"{url}/stream") == 1
        page.evaluate(follow, "secret")
        shared_redis.wait_listeners(1)
        # redis-py leaves some types out.
        shared_redis.admin.publish("sse", '{"data": "x"}')  # pyright: ignore[reportUnknownMemberType]
        page.wait_for_function("got.join() === 'x'")
        page.evaluate("stop()")
        shared_redis.wait_listeners(0)
