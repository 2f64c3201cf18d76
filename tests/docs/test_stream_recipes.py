"""The recipes with streams chosen in code: each is served as on the page, and used."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from datastar_py import ServerSentEventGenerator as Datastar
from playwright.sync_api import Browser, Page

from tests.support.client import StreamClient
from tests.support.parser import Event
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE

from . import typescript
from .running import post, runs, serving_app

_LOGIN: Final = """
from flask import session
from user_streams import app

@app.get("/login/<int:user>")
def log_in(user):
    session["user_id"] = user
    return ""
"""

# Waits in the middle of each answer.
_SLOW: Final = """
import time
from pathlib import Path

import {recipe}
from {recipe} import app

generate_at_once = {recipe}.generate

def generate(question):
    for number, token in enumerate(generate_at_once(question)):
        deadline = time.monotonic() + 40
        while number == 2 and not Path("go").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield token

{recipe}.generate = generate
"""

_CHAT: Final = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Chat } from "./Chat";

const root = createRoot(document.getElementById("root")!);
root.render(<StrictMode><Chat id="first" /></StrictMode>);
"""

# A view that ends all streams of the orders, as a deploy does.
_ORDERS: Final = """
import with_datastar
from flask_sse import streams
from with_datastar import app

app.view_functions["events"] = lambda: streams.stream(["orders"], client="page")

@app.post("/end")
def end():
    return str(streams.disconnect(client="page"))
"""
_ITEMS: Final = "[...document.querySelectorAll('li')].map((item) => item.textContent).join('|')"
_DATASTAR: Final = ROOT / ".venv" / "datastar" / "starhtml" / "static" / "js" / "datastar-core.js"


@pytest.fixture
def place(folder: Path) -> Path:
    """Return the folder of the recipes."""
    return folder / "recipes"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page."""
    page = browser.new_page()
    yield page
    page.close()


def _wait_items(page: Page, *items: str) -> None:
    page.wait_for_function(f"{_ITEMS} === {'|'.join(items)!r}")


@runs("recipes/user_streams.py")
def test_user_streams(place: Path) -> None:
    """A user who has logged in gets two channels through one stream, and nobody else's."""
    (place / "login.py").write_text(_LOGIN)
    with serving_app("login", place, SECRET_KEY="secret") as url:
        port = int(urlsplit(url).port or 0)
        with urlopen(f"{url}/login/7", timeout=PATIENCE) as answer:
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        for path in ("/events", "/events?channel=user.7"):
            with StreamClient(port, path=path) as client:
                assert client.read_headers().status == 403
        header = f"Cookie: {cookie}\r\n"
        with StreamClient(port, "user.8", path="/events", headers=header) as client:
            [opened] = client.wait_events(1)
            assert json.loads(opened.data)["channels"] == {"user.7": False, "news": False}
            post(f"{url}/orders/8/shipped")
            post(f"{url}/orders/7/shipped")
            event = client.wait_events(2)[1]
            assert (event.type, json.loads(event.data)) == (
                "notification",
                {"text": "Your order has been shipped."},
            )


@runs("recipes/logout.py", "recipes/templates/logout.html")
def test_logout(place: Path, browser: Browser) -> None:
    """Logging out ends the streams in all tabs of this user, which show the login form."""
    (place / "publishing.py").write_text(
        "from flask_sse import sse\n"
        "from logout import app\n"
        "app.add_url_rule('/say/<text>', 'say', methods=['POST'],\n"
        "    view_func=lambda text: str(sse.publish(text, type='news', channel='news')))\n"
    )
    with (
        serving_app("publishing", place, SECRET_KEY="secret") as url,
        browser.new_context() as alice,
        browser.new_context() as bob,
    ):
        pages = [alice.new_page(), bob.new_page()]
        for page, name in zip(pages, ("Alice", "Bob"), strict=True):
            page.goto(url)
            page.fill("[name=name]", name)
            page.click("button")
        pages.insert(1, alice.new_page())
        pages[1].goto(url)
        for page in pages:
            page.wait_for_function("source.readyState === EventSource.OPEN")
        post(f"{url}/say/first")
        for page in pages:
            _wait_items(page, "first")
        pages[0].click("button")
        for page in pages[:2]:
            page.wait_for_selector("[name=name]")
        post(f"{url}/say/second")
        _wait_items(pages[2], "first", "second")
        assert pages[2].evaluate("source.readyState") == 1


@runs("recipes/chat.py", "recipes/templates/chat.html")
def test_chat(place: Path, browser: Browser) -> None:
    """A page gets the messages of the rooms that it shows, also while it changes rooms."""
    with serving_app("chat", place) as url, browser.new_context() as context:
        alice, bob = context.new_page(), context.new_page()
        for page in (alice, bob):
            page.goto(url)
        alice.check("[name=tea]")
        _say(alice, "tea", "Alice", "Hello")
        _wait_items(alice, "tea - Alice: Hello")
        _say(alice, "lobby", "Alice", "Anybody?")
        bob.check("[name=tea]")
        _wait_items(bob, "tea - Alice: Hello")
        bob.check("[name=lobby]")
        _wait_items(bob, "tea - Alice: Hello", "lobby - Alice: Anybody?")
        _say(bob, "tea", "Bob", "<b>Hi</b>")
        _wait_items(alice, "tea - Alice: Hello", "tea - Bob: <b>Hi</b>")
        _wait_items(bob, "tea - Alice: Hello", "lobby - Alice: Anybody?", "tea - Bob: <b>Hi</b>")
        # One that was published by another thread, after one with a higher id.
        late = json.dumps({"id": 0, "room": "tea", "name": "Carol", "text": "First"})
        alice.evaluate(
            "(data) => source.dispatchEvent(new MessageEvent('message', { data }))", late
        )
        _wait_items(alice, "tea - Carol: First", "tea - Alice: Hello", "tea - Bob: <b>Hi</b>")
        bob.uncheck("[name=tea]")
        _wait_items(bob, "lobby - Alice: Anybody?")
        assert bob.evaluate("source.url").count("room=") == 1
        for path in ("events", "events?room=kitchen", "events?room=tea&room=kitchen"):
            with pytest.raises(HTTPError, match="403"):
                urlopen(f"{url}/{path}", timeout=PATIENCE)
        for form in ({"name": "Nobody"}, {"text": "?"}):
            with pytest.raises(HTTPError, match="400"):
                post(f"{url}/rooms/tea", **form)
        with pytest.raises(HTTPError, match="404"):
            post(f"{url}/rooms/kitchen", name="Dave", text="Food")


def _say(page: Page, room: str, name: str, text: str) -> None:
    page.select_option("[name=room]", room)
    page.fill("[name=name]", name)
    page.fill("[name=text]", text)
    page.click("button")
    page.wait_for_function("document.forms[0].elements.text.value === ''")


@runs("recipes/llm.py", "recipes/templates/llm.html")
def test_language_model(place: Path, browser: Browser) -> None:
    """Every page of an answer shows all of its tokens: after a reload, and in another tab."""
    (place / "slow.py").write_text(_SLOW.format(recipe="llm"))
    with serving_app("slow", place) as url, browser.new_context() as context:
        first, second = context.new_page(), context.new_page()
        first.goto(url)
        for question in ("What is an event?", "Why?"):
            (place / "go").unlink(missing_ok=True)
            first.fill("[name=question]", question)
            first.click("text='Ask'")
            _wait_answer(first, "You asked:")
            first.reload()
            second.goto(first.url)
            for page in (first, second):
                _wait_answer(page, "You asked:")
            (place / "go").touch()
            for page in (first, second):
                _wait_answer(page, f"You asked: {question}")
                page.wait_for_function("source.readyState === EventSource.CLOSED")
                assert not page.query_selector("#stop")
                page.reload()
                _wait_answer(page, f"You asked: {question}")
                page.wait_for_function("source.readyState === EventSource.CLOSED")
        # A position in a log that Redis no longer has.
        address, last = first.url[:-1], first.url[-1]
        first.goto(address + ("0" if last != "0" else "1"))
        _wait_answer(first, "This answer is no longer available.")


def test_language_model_is_stopped(place: Path, page: Page) -> None:
    """The button ends the answer in all pages, and the model is asked for nothing more."""
    (place / "slow.py").write_text(_SLOW.format(recipe="llm"))
    with serving_app("slow", place) as url:
        page.goto(url)
        page.fill("[name=question]", "What is an event?")
        page.click("text='Ask'")
        _wait_answer(page, "You asked:")
        with page.expect_response("**/stop"):
            page.click("#stop")
        (place / "go").touch()
        page.wait_for_function("source.readyState === EventSource.CLOSED")
        _wait_answer(page, "You asked:")


def test_a_browser_stops_asking(place: Path, page: Page) -> None:
    """After the end of an answer, 204 closes the stream of a page that does not do it itself."""
    (place / "templates" / "llm.html").write_text(
        "<!doctype html><form method=post action='/questions'><input name=question>"
        "<button>Ask</button></form>"
        "{% if answer %}<script>"
        "const source = new EventSource({{ url_for('events', answer=answer,"
        " last_event_id=position) | tojson }});"
        "</script>{% endif %}"
    )
    statuses: list[int] = []
    page.on(
        "response",
        lambda response: statuses.append(response.status) if "/events" in response.url else None,
    )
    with serving_app("llm", place) as url:
        page.goto(url)
        page.fill("[name=question]", "Why?")
        page.click("button")
        page.wait_for_function("source.readyState === EventSource.CLOSED")
        assert statuses == [200, 204]


def _wait_answer(page: Page, text: str) -> None:
    # The page may still be loading.
    shown = "document.querySelector('#answer')?.textContent.trim()"
    page.wait_for_function(f"{shown} === {text!r}")


@pytest.mark.long
@runs(
    "recipes/ai_chat.py",
    "recipes/answers.ts",
    "recipes/Chat.tsx",
    "recipes/templates/ai_chat.html",
)
def test_ai_sdk(place: Path, page: Page) -> None:
    """`useChat` shows an answer word by word, resumes it after a reload, and stops it."""
    typescript.link_packages(place)
    (place / "main.tsx").write_text(_CHAT)
    typescript.check(place, "main.tsx")
    (place / "static").mkdir()
    typescript.bundle(place, "main.tsx")
    (place / "slow.py").write_text(_SLOW.format(recipe="ai_chat"))
    with serving_app("slow", place) as url:
        page.goto(url)
        _ask(page, "What is an event?")
        _wait_lines(page, "user: What is an event?", "assistant: You asked:")
        page.reload()
        _wait_lines(page, "assistant: You asked:")
        (place / "go").touch()
        _wait_lines(page, "assistant: You asked: What is an event?")
        page.reload()
        _wait_lines(page, "assistant: You asked: What is an event?")
        (place / "go").unlink()
        _ask(page, "Why?")
        answered = ("assistant: You asked: What is an event?", "user: Why?")
        _wait_lines(page, *answered, "assistant: You asked:")
        with page.expect_response(lambda response: response.request.method == "DELETE"):
            page.click("text='Stop'")
        (place / "go").touch()
        _ask(page, "Really?")
        stopped = (*answered, "assistant: You asked:")
        _wait_lines(page, *stopped, "user: Really?", "assistant: You asked: Really?")


def _ask(page: Page, question: str) -> None:
    page.fill("[name=question]", question)
    page.click("text='Ask'")


def _wait_lines(page: Page, *lines: str) -> None:
    shown = "[...document.querySelectorAll('p')].map((line) => line.textContent.trim()).join('|')"
    page.wait_for_function(f"{shown} === {'|'.join(lines)!r}")


@runs("recipes/with_datastar.py", "recipes/templates/orders.html")
def test_datastar_events(place: Path) -> None:
    """The stream has the fields of the events that datastar-py makes, with ids."""
    with serving_app("with_datastar", place) as url:
        port = int(urlsplit(url).port or 0)
        with StreamClient(port, path="/events") as client:
            client.wait_events(1)
            for item in ("tea", "<b>milk</b>"):
                _order(url, item)
            received = client.wait_events(3)[1:]
        assert [event.type for event in received] == ["datastar-patch-elements"] * 2
        fragments = (
            '<ul id="orders"><li>tea</li></ul>',
            '<ul id="orders"><li>tea</li><li>&lt;b&gt;milk&lt;/b&gt;</li></ul>',
        )
        assert [event.data for event in received] == [f"elements {each}" for each in fragments]
        assert Datastar.patch_elements(fragments[0]) == _frame(received[0])


def _frame(event: Event) -> str:
    return f"event: {event.type}\ndata: {event.data}\n\n"


def _order(url: str, item: str) -> None:
    headers = {"Content-Type": "application/json"}
    request = Request(f"{url}/orders", json.dumps({"item": item}).encode(), headers)
    with urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 204


@pytest.mark.long
@runs("recipes/templates/datastar.html")
def test_datastar(place: Path, browser: Browser) -> None:
    """Datastar patches the list in all pages, and connects again when the stream has ended."""
    (place / "static").mkdir()
    (place / "static" / "datastar.js").write_bytes(_DATASTAR.read_bytes())
    (place / "ending.py").write_text(_ORDERS)
    resumed: list[str] = []
    with serving_app("ending", place) as url, browser.new_context() as context:
        pages = [context.new_page() for _ in range(2)]
        for page in pages:
            page.on(
                "request", lambda request: resumed.append(request.headers.get("last-event-id", ""))
            )
            with page.expect_response("**/events?**"):
                page.goto(url)
        pages[0].fill("input", "tea")
        pages[0].click("button")
        for page in pages:
            _wait_items(page, "tea")
        with pages[1].expect_response("**/events?**"):
            post(f"{url}/end")
        assert resumed[-1]
        pages[0].fill("input", "<b>milk</b>")
        pages[0].click("button")
        for page in pages:
            _wait_items(page, "tea", "<b>milk</b>")
