"""The demo, in a real browser's windows."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support import demo
from tests.support.demo import Window
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import PATIENCE, wait_until

VISITOR: Final = {"tab": "test", "name": "Test", "hue": 0}
SIZES: Final = {"desktop": (1280, 800), "phone": (390, 844)}

SOONER: Final = 8_000
"""Milliseconds, less than those after which a pointer that is silent goes."""

# Keeps the events that the page has got, as they came.
SPY: Final = """
window.seen = [];
const Real = EventSource;
window.EventSource = function (url) {
  const source = new Real(url);
  source.addEventListener("burst", event => seen.push(JSON.parse(event.data).number));
  return source;
};
window.EventSource.CLOSED = Real.CLOSED;
"""

# The lowest contrast between a text and what is behind it; colors are compared as pixels are.
CONTRAST: Final = """
() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colors) => {
    for (const color of colors) {
      context.fillStyle = color;
      context.fillRect(0, 0, 1, 1);
    }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (pixel) => {
    const [red, green, blue] = pixel.map((value) => value / 255).map((value) =>
      value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ratio = (element) => {
    const behind = [];
    for (let node = element; node; node = node.parentElement)
      behind.unshift(getComputedStyle(node).backgroundColor);
    const back = luminance(paint(behind));
    const front = luminance(paint([...behind, getComputedStyle(element).color]));
    return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) =>
    element.checkVisibility() && [...element.childNodes].some((node) =>
      node.nodeType === Node.TEXT_NODE && node.textContent.trim()));
  const worst = texts.map((element) => [ratio(element), element.textContent.trim()]);
  return worst.sort(([one], [other]) => one - other)[0];
}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve the demo without a Redis."""
    with demo.serve(tmp_path_factory.mktemp("demo")) as site:
        yield site


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Return a browser whose windows share their connections, as a user's windows do."""
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def open_window(site: Site, context: BrowserContext) -> Iterator[Callable[[], Window]]:
    """Return a function that opens a window; at the end, no script may have failed."""
    windows: list[Window] = []

    def open_one() -> Window:
        windows.append(Window(context, site.port))
        return windows[-1]

    yield open_one
    assert [window.errors for window in windows] == [[]] * len(windows)


@pytest.mark.parametrize("channel", ["live", pytest.param("sse", marks=pytest.mark.long)])
def test_publishing(open_window: Callable[[], Window], channel: str) -> None:
    """All windows show an event from one window, in its channel, with the time that it took."""
    here, there = open_window(), open_window()
    here.publish(f"to {channel}", channel)
    for window in (here, there):
        row = window.row(f"to {channel}", channel)
        expect(row).to_have_count(1)
        took = re.search(r"([0-9.]+) ms$", row.inner_text())
        assert took
        assert float(took[1]) < 5000
        expect(window.row(f"to {channel}")).to_have_count(int(channel == "sse"))
    expect(here.page.get_by_text(re.compile(r"^Published in \d+ ms\.$"))).to_be_visible()
    expect(there.page.locator("#received")).not_to_have_text("0")


def test_pointers(open_window: Callable[[], Window], site: Site) -> None:
    """A pointer moves in the other window, and disappears when its window is closed or silent."""
    here = open_window()
    there = open_window()
    for window in (here, there):
        expect(window.page.get_by_text("2 windows")).to_be_visible()
    pointer = there.pointer(here.tab())
    for x, y in ((0.25, 0.5), (0.75, 0.25)):
        here.point(x, y)
        expect(pointer).to_have_css("transform", _moved(there.page, x, y))
    here.page.goto("about:blank")
    expect(pointer).to_have_count(0, timeout=SOONER)

    there.page.clock.install()
    _post(site, "cursor", {**VISITOR, "x": 0.5, "y": 0.5})
    silent = there.pointer("test")
    expect(silent).to_be_visible()
    there.page.clock.fast_forward(11_000)
    expect(silent).to_have_count(0)


def test_a_thousand(open_window: Callable[[], Window], context: BrowserContext) -> None:
    """A thousand events arrive in all windows, in order, and each page says so itself."""
    context.add_init_script(SPY)
    windows = open_window(), open_window()
    windows[0].button("Send 1,000").click()
    for window in windows:
        row = window.row("1,000 of 1,000, in order")
        expect(row).to_be_visible()
        assert window.page.evaluate("seen") == list(range(1, 1001))


@pytest.mark.parametrize("server", ["gunicorn", pytest.param("flask", marks=pytest.mark.long)])
def test_a_lost_connection(
    server: str, open_window: Callable[[], Window], context: BrowserContext, tmp_path: Path
) -> None:
    """The browser itself resumes with `Last-Event-ID`: with history nothing is missed."""
    with ExitStack() as stack:
        if server == "gunicorn":
            window = open_window()
        else:
            served = stack.enter_context(demo.serve_with_flask(tmp_path))
            window = Window(context, served.port)
        window.publish("before")
        expect(window.row("before")).to_be_visible()
        with window.page.expect_request(re.compile(r"channel=sse")) as resumed:
            window.button("Drop the connection").click()
            window.wait_light("Reconnecting")
        story = window.page.locator("#story")
        expect(story).to_contain_text("Back after")
        window.wait_light("Connected")
        assert "5 of 5 recovered" in story.inner_text()
        assert "5 of 5 missed" in story.inner_text()
        position = story.inner_text().partition("Last-Event-ID: ")[2]
        assert resumed.value.all_headers()["last-event-id"] == position
        expect(window.row("recovered")).to_have_count(5)
        expect(window.row("missed", "live")).to_have_count(1)
        expect(window.row("recovered", "live")).to_have_count(0)


@pytest.mark.long
def test_a_restart(context: BrowserContext, tmp_path: Path) -> None:
    """The page comes back after a restart, and says that the events in memory are lost."""
    with demo.serve_with_flask(tmp_path) as site:
        window = Window(context, site.port)
    window.wait_light("Reconnecting")
    with demo.serve_with_flask(tmp_path, port=site.port):
        window.wait_light("Connected")
        expect(window.row("Events may be missing")).to_be_visible()


def test_a_hidden_window(open_window: Callable[[], Window], site: Site) -> None:
    """A hidden window has no streams; when it is shown again, it gets the events that it missed."""
    here, there = open_window(), open_window()
    visitor = {**VISITOR, "tab": here.tab()}
    _hide(here.page, hidden=True)
    here.wait_light("Paused while hidden")
    expect(there.page.get_by_text("1 window")).to_be_visible(timeout=SOONER)
    wait_until(lambda: _post(site, "drop", visitor) == 409, "no connection is left to drop")
    there.publish("while hidden")
    expect(there.row("while hidden")).to_be_visible()
    expect(here.row("while hidden")).to_have_count(0)
    _hide(here.page, hidden=False)
    expect(here.row("while hidden")).to_contain_text("recovered")
    expect(there.page.get_by_text("2 windows")).to_be_visible()


def test_the_raw_text(open_window: Callable[[], Window]) -> None:
    """The text of the stream is shown only on request."""
    window = open_window()
    text = window.page.locator("#raw-text")
    window.button("Show").click()
    expect(text).to_contain_text("retry:2000\nevent:sse.open\n")
    window.publish("in full")
    expect(text).to_contain_text(re.compile(r'event:note\ndata:\{.*"in full"\}\nid:\w'))
    window.button("Stop").click()
    window.publish("not any more")
    expect(window.row("not any more")).to_be_visible()
    expect(text).not_to_contain_text("not any more")


def test_what_others_publish(
    context: BrowserContext, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """`/hello` greets as in the quickstart, and events of other programs are shown as text."""
    with demo.serve_with_flask(tmp_path, redis_url=shared_redis.url) as site:
        window = Window(context, site.port)
        assert site.get("/hello") == "Message sent!"
        expect(window.row("The server says Hello!")).to_be_visible()
        shared_redis.admin.publish("live", '{"data": "<b>from elsewhere</b>"}')
        expect(window.row("<b>from elsewhere</b>", "live")).to_be_visible()
        shared_redis.admin.publish("live", '{"data": [1, 2]}')
        expect(window.row("[1, 2]", "live")).to_be_visible()
        assert window.errors == []


def test_the_keyboard(open_window: Callable[[], Window]) -> None:
    """Everything can be done with the keyboard only."""
    window = open_window()
    keyboard = window.page.keyboard
    reached: list[str] = []

    def move_to(name: str) -> None:
        while not reached or name not in reached[-1]:
            assert len(reached) < 20, reached
            keyboard.press("Tab")
            reached.append(_focused(window.page))

    move_to("Shared pointers")
    own = window.pointer(window.tab())
    before = own.evaluate("element => element.style.transform")
    for _ in range(5):
        keyboard.press("ArrowDown")
    expect(own).not_to_have_attribute("style", re.compile(re.escape(before)))
    move_to("sse, with history")
    keyboard.press("ArrowDown")
    assert _focused(window.page) == "live, without"
    move_to("Text")
    keyboard.press("ControlOrMeta+a")
    keyboard.type("typed")
    keyboard.press("Enter")
    expect(window.row("typed", "live")).to_be_visible()
    for name in ("Publish", "Send 1,000", "With history", "Without history"):
        move_to(name)
    move_to("Drop the connection")
    keyboard.press("Space")
    expect(window.page.locator("#story")).not_to_be_empty()
    for name in ("Channel", "Show", "Raw text", "/hello"):
        move_to(name)


def test_names(open_window: Callable[[], Window]) -> None:
    """Each control has a name for screen readers, and new events are not read out."""
    window = open_window()
    session = window.page.context.new_cdp_session(window.page)
    nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if not node["ignored"]
        and any(one["name"] == "focusable" for one in node.get("properties", ()))
        and node["role"]["value"] != "RootWebArea"
    }
    assert {role for role, name in named if not name} == set()
    assert named >= {
        ("application", "Shared pointers. The arrow keys move yours."),
        ("radio", "sse, with history"),
        ("textbox", "Text"),
        ("button", "Publish"),
        ("log", "Without history live"),
        ("combobox", "Channel"),
    }
    live = window.page.locator("[aria-live=polite], [role=status], output")
    assert live.evaluate_all("all => all.map(one => one.id)") == ["light", "said", "story"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_looks(site: Site, browser: Browser, size: str, scheme: Any) -> None:
    """Nothing is wider than the window, all text is readable, and reduced motion is respected."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    window = Window(context, site.port)
    window.publish("unbroken" * 20)
    expect(window.row("unbroken")).to_be_visible()
    expect(window.pointer(window.tab())).to_be_visible()
    assert window.page.evaluate("document.documentElement.scrollWidth") == width
    assert window.page.locator(".events, pre").evaluate_all(
        "all => all.every(one => one.scrollWidth === one.clientWidth)"
    )
    ratio, text = window.page.evaluate(CONTRAST)
    assert ratio >= 4.5, text
    assert (
        window.page.evaluate(
            "document.getAnimations({ subtree: true }).length"
            " + [...document.querySelectorAll('.cursor')]"
            ".filter(one => getComputedStyle(one).transitionDuration !== '0s').length"
        )
        == 0
    )
    assert window.errors == []
    context.close()


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("notes", {"channel": "sse", "text": ""}),
        ("notes", {"channel": "sse", "text": "x" * 281}),
        ("notes", {"channel": "sse", "text": "two\nlines"}),
        ("notes", {"channel": "sse", "text": 1}),
        ("notes", {"channel": "other", "text": "x"}),
        ("notes", {"channel": ["sse"], "text": "x"}),
        ("notes", {"channel": "sse", "text": "x", "hue": 360}),
        ("notes", {"channel": "sse", "text": "x", "hue": 1.5}),
        ("notes", {"channel": "sse", "text": "x", "name": "x" * 33}),
        ("burst", {"channel": "sse"}),
        ("burst", {"channel": "nowhere", "burst": "x"}),
        ("cursor", {"x": 0.5}),
        ("cursor", {"x": 0.5, "y": 1.5}),
        ("cursor", {"x": float("nan"), "y": 0.5}),
        ("leave", {"tab": ""}),
        ("drop", {"tab": None}),
    ],
)
def test_what_is_refused(site: Site, path: str, fields: dict[str, object]) -> None:
    """The server accepts only requests that the page would send."""
    assert _post(site, path, {**VISITOR, **fields}) == 400


def test_other_refusals(site: Site) -> None:
    """The server needs short JSON, which other sites can't send without permission."""
    assert _post(site, "notes", ["not", "an", "object"]) == 400
    assert _post(site, "drop", VISITOR) == 409
    assert _post(site, "notes", {**VISITOR, "channel": "sse", "text": "x" * 5000}) == 413
    assert _post(site, "notes", {**VISITOR, "channel": "sse", "text": "x"}, "text/plain") == 415
    assert _post(site, "notes", {**VISITOR, "channel": "sse", "text": "x"}) == 204


def _moved(page: Page, x: float, y: float) -> re.Pattern[str]:
    """Return the transformation of a pointer at a position, within a pixel."""
    size = page.get_by_role("application").bounding_box()
    assert size is not None
    pixels = (x * size["width"], y * size["height"])
    near = [
        "(" + "|".join(str(round(pixel) + by) for by in (-1, 0, 1)) + r")(\.\d+)?"
        for pixel in pixels
    ]
    return re.compile(rf"^matrix\(1, 0, 0, 1, {near[0]}, {near[1]}\)$")


def _focused(page: Page) -> str:
    """Return the name of the focused element."""
    text: str = page.evaluate(
        """() => {
          const it = document.activeElement;
          const by = document.getElementById(it.getAttribute("aria-labelledby"));
          return it.ariaLabel ?? by?.textContent ?? it.labels?.[0]?.textContent.trim()
            ?? it.textContent.trim();
        }"""
    )
    return text


def _hide(page: Page, *, hidden: bool) -> None:
    """Make the page believe that it is hidden, which headless browsers never do."""
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def _post(site: Site, path: str, body: object, media: str = "application/json") -> int:
    """Send JSON; return the status of the answer."""
    url = f"http://{LOOPBACK}:{site.port}/{path}"
    request = Request(url, json.dumps(body).encode(), {"Content-Type": media})
    try:
        with urlopen(request, timeout=PATIENCE) as answer:
            status: int = answer.status
    except HTTPError as error:
        with error:
            return error.code
    return status
