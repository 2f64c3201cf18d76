"""How the pages look in a real browser: on a desktop and on a phone, in light and in dark."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import Browser, Page, Route, ViewportSize

from tests.support.servers import ROOT

from .conftest import BuiltSite
from .test_site import BASE, PAGES

DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 800}
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
AXE: Final = ROOT / "tests" / "clients" / "node_modules" / "axe-core" / "axe.min.js"

# What axe-core says about each barrier, in a line. These rules are no part of WCAG. Three of them
# are about the theme's own parts, and the corner of a table with heads on two sides may be empty.
CHECK: Final = """
async () => (await axe.run({ rules: Object.fromEntries([
  "empty-table-header", "landmark-unique", "page-has-heading-one", "region",
].map((rule) => [rule, { enabled: false }])) })).violations.flatMap(({ id, nodes }) =>
  nodes.map((node) => `${id}: ${node.html.slice(0, 120)} ${node.any[0]?.message ?? ""}`))
"""
# An element whose line is broken has several boxes; the first is where it begins.
TOP: Final = "element => element.getClientRects()[0].top"
LINE: Final = 15
"""Pixels, less than the height of a line."""

Open = Callable[..., Page]


@contextmanager
def opening(site: BuiltSite, browser: Browser) -> Generator[Open]:
    """Return a function that opens a page of the site; no page may load anything from outside."""
    pages: list[Page] = []
    elsewhere: list[str] = []

    def open_page(name: str, size: ViewportSize = DESKTOP, **options: Any) -> Page:
        page = browser.new_page(viewport=size, **options)
        pages.append(page)
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(address(site, name))
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [url for url in elsewhere if not url.startswith(("file:", "data:"))] == []


def address(site: BuiltSite, name: str) -> str:
    """Return the URL of a page of the site."""
    return (site.html / f"{name}.html").as_uri()


@pytest.fixture
def open_page(site: BuiltSite, browser: Browser) -> Iterator[Open]:
    """Return a function that opens a page in a window of its own."""
    with opening(site, browser) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def phone(site: BuiltSite, browser: Browser) -> Iterator[Open]:
    """Return a function that opens pages one after another in the same window, which is faster."""
    with opening(site, browser) as open_page:
        page = open_page("index", PHONE)

        def go_to(name: str) -> Page:
            page.goto(address(site, name))
            return page

        yield go_to


@pytest.mark.parametrize("name", PAGES)
def test_code_on_a_phone(phone: Open, name: str) -> None:
    """Code scrolls and is never wrapped, so that its indentation is true; the page fits."""
    page = phone(name)
    spaces = "blocks => blocks.map(block => getComputedStyle(block).whiteSpace)"
    assert set(page.locator(".highlight pre").evaluate_all(spaces)) <= {"pre"}
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_code_scrolls_with_the_keyboard(open_page: Open) -> None:
    """Code that is too wide can be focused with the tab key; code that fits is skipped."""
    page = open_page("quickstart", PHONE)
    page.wait_for_selector("pre[tabindex]")
    wide = "blocks => blocks.map(block => [block.scrollWidth > block.clientWidth, block.tabIndex])"
    found = {tuple(pair) for pair in page.locator(".highlight pre").evaluate_all(wide)}
    assert found == {(True, 0), (False, -1)}


def test_figures(open_page: Open) -> None:
    """Tables of figures scroll within the page, with the figures aligned to the right."""
    page = open_page("performance", PHONE)
    tables = page.locator(".table-wrapper")
    wide = "tables => tables.filter(each => each.scrollWidth > each.clientWidth).length"
    assert tables.evaluate_all(wide) > 0
    style = "cells => cells.map(cell => {{ const s = getComputedStyle(cell); return s.{}; }})"
    cells = page.locator("table.figures td")
    assert set(cells.evaluate_all(style.format("textAlign"))) == {"right"}
    assert set(cells.evaluate_all(style.format("whiteSpace"))) == {"nowrap"}
    heads = page.locator("table.figures th").all_inner_texts()
    assert [head for head in heads if head.startswith(("flask-sse", "floor,"))] == []


def test_terms(open_page: Open) -> None:
    """The terms of a definition list are bold, and have a link that a pointer reveals."""
    page = open_page("configuration")
    term = page.locator("#term-memory")
    assert int(term.evaluate("element => getComputedStyle(element).fontWeight")) >= 600
    term.hover()
    term.locator(".headerlink").click()
    assert page.url.endswith("#term-memory")


def test_settings(open_page: Open) -> None:
    """The type of a setting and its default stand on one line, where the line is long enough."""
    page = open_page("configuration")
    settings = page.locator("dl.confval")
    assert settings.count() > 5
    same = 0
    for setting in settings.all():
        fields = setting.locator(".field-list > dt, .field-list > dd").all()
        assert len(fields) == 4
        tops = [each.evaluate(TOP) for each in fields]
        same += max(tops) - min(tops) < LINE
    assert same >= settings.count() - 1


def test_copy_buttons(open_page: Open) -> None:
    """Each block of code has a button, which copies commands without their prompt."""
    page = open_page("testing")
    assert page.locator(".copybtn").count() == page.locator(".highlight pre").count()
    page.evaluate(
        "addEventListener('copy', () => { window.copied = document.activeElement.value; }, true)"
    )
    page.locator(".highlight-console .copybtn").first.click()
    assert page.evaluate("copied.trim()") == "pip install 'Flask-SSE[memory]'"


def test_tabs_of_the_home_page(open_page: Open) -> None:
    """The code of the server and that of the page are in tabs; a button leads to the quickstart."""
    page = open_page("index", PHONE)
    server, client = page.get_by_text("register_blueprint"), page.get_by_text("new EventSource")
    assert (server.first.is_visible(), client.first.is_visible()) == (True, False)
    page.get_by_text("The page", exact=True).click()
    assert (server.first.is_visible(), client.first.is_visible()) == (False, True)
    page.locator("a.sd-btn").click()
    assert page.locator("h1").inner_text().startswith("Quickstart")


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("troubleshooting", "Troubleshooting"),
        ("htmx", "HTMX"),
        ("react", "React"),
        ("typescript", "TypeScript"),
        ("websocket", "Choosing"),
        ("cors", "In the browser"),
        ("authorization", "Advanced Usage"),
        ("kubernetes", "Deployment"),
        ("heroku", "Heroku"),
        ("prometheus", "Signals"),
        ("history", "History"),
    ],
)
def test_search(phone: Open, query: str, title: str) -> None:
    """What newcomers look for is among the first results, also on a phone."""
    page = phone("search")
    box = page.get_by_role("searchbox")
    box.fill(query)
    box.press("Enter")
    page.get_by_text("Search finished").or_(page.locator(".search-summary")).first.wait_for()
    results = page.locator("ul.search li").all_inner_texts()
    assert any(title in text for text in results[:3])


def test_page_for_a_url_that_leads_nowhere(site: BuiltSite, browser: Browser) -> None:
    """In any folder, the page has its logo, its style, and links into the site."""

    def answer(route: Route) -> None:
        path = site.html / route.request.url.removeprefix(BASE).partition("?")[0]
        route.fulfill(path=path if path.is_file() else site.html / "404.html")

    page = browser.new_page()
    page.route("**/*", answer)
    page.goto(f"{BASE}no/such/page.html")
    assert page.locator("h1").inner_text() == "Page not found"
    assert page.locator(".sidebar-logo").evaluate("image => image.naturalWidth") > 0
    sheets = "Array.from(document.styleSheets, (sheet) => sheet.cssRules.length)"
    assert min(page.evaluate(sheets)) > 0
    page.get_by_role("link", name="first page").click()
    page.wait_for_url(f"{BASE}index.html")
    assert page.locator("h1").inner_text().startswith("Flask-SSE")
    page.close()


@pytest.mark.long
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", [*PAGES, "genindex", "search"])
def test_barriers(open_page: Open, name: str, scheme: Literal["light", "dark"]) -> None:
    """axe-core finds no barriers, on a desktop and on a phone: all text has a contrast of 4.5:1."""
    assert AXE.exists(), "axe-core is not installed; run: make test-long"
    for size in (DESKTOP, PHONE):
        page = open_page(name, size, color_scheme=scheme)
        page.add_script_tag(path=AXE)
        assert page.evaluate(CHECK) == []
