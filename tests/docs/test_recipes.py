"""The recipes: each is served as on the page, and used."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, Page

from tests.support.client import StreamClient
from tests.support.processes import LOOPBACK, Process, free_port
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE

from .running import environment, listening, runs, serving, shell, wait_for

_RQ: Final = "rq worker --url redis://localhost"
_CLOCK: Final = "python clock.py"
_HEARTBEAT: Final = "python heartbeat.py"
# Logs a user in.
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

import llm
from llm import app

generate_at_once = llm.generate

def generate(question):
    for number, token in enumerate(generate_at_once(question)):
        deadline = time.monotonic() + 40
        while number == 2 and not Path("go").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield token

llm.generate = generate
"""


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


@contextmanager
def _serving(place: Path, app: str, **variables: str) -> Generator[int]:
    port = free_port()
    with serving(f"exec flask --app {app} run --port {port}", port, place, **variables):
        yield port


def _post(port: int, path: str, **form: str) -> str:
    request = Request(f"http://{LOOPBACK}:{port}{path}", urlencode(form).encode())
    with urlopen(request, timeout=PATIENCE) as answer:
        text: str = answer.read().decode()
        return text


@runs("recipes/user_streams.py")
def test_user_streams(place: Path) -> None:
    """A user who has logged in may open one channel, and gets the notification there."""
    (place / "login.py").write_text(_LOGIN)
    with _serving(place, "login", SECRET_KEY="secret") as port:
        with urlopen(f"http://{LOOPBACK}:{port}/login/7", timeout=PATIENCE) as answer:
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        header = f"Cookie: {cookie}\r\n"
        for channel, headers in (
            (None, header),
            ("user.8", header),
            ("other", header),
            ("user.7", ""),
            ("user.None", ""),
        ):
            with StreamClient(port, channel, headers=headers) as client:
                assert client.read_headers().status == 403
        with StreamClient(port, "user.7", headers=header).open() as client:
            _post(port, "/orders/8/shipped")
            _post(port, "/orders/7/shipped")
            [event] = client.wait_events(1)
            assert event.type == "notification"
            assert json.loads(event.data) == {"text": "Your order has been shipped."}


@runs("recipes/progress.py", "recipes/templates/progress.html")
def test_progress(place: Path, page: Page) -> None:
    """The progress bar of a finished job is full, and the stream is closed."""
    with _serving(place, "progress") as port:
        job = json.loads(_post(port, "/jobs"))["id"]
        page.goto(f"http://{LOOPBACK}:{port}/jobs/{job}")
        page.wait_for_function("bar.value === 20 && bar.max === 20")
        page.wait_for_function("source.readyState === EventSource.CLOSED")
        page.reload()
        page.wait_for_function("bar.value === 20")


@runs("recipes/chat.py", "recipes/templates/chat.html")
def test_chat(place: Path, browser: Browser) -> None:
    """Every user in the room sees all messages once, including earlier messages."""
    with _serving(place, "chat") as port, browser.new_context() as context:
        url = f"http://{LOOPBACK}:{port}/rooms/tea"
        alice, bob = context.new_page(), context.new_page()
        alice.goto(url)
        _say(alice, "Alice", "Hello")
        _wait_messages(alice, "Alice: Hello")
        bob.goto(url)
        _say(bob, "Bob", "<b>Hi</b>")
        for page in (alice, bob):
            _wait_messages(page, "Alice: Hello|Bob: <b>Hi</b>")
        # One that was published by another thread, after one with a higher id.
        late = json.dumps(json.dumps({"id": 0, "name": "Carol", "text": "First"}))
        bob.evaluate(f"source.dispatchEvent(new MessageEvent('message', {{ data: {late} }}))")
        _wait_messages(bob, "Carol: First|Alice: Hello|Bob: <b>Hi</b>")
        with pytest.raises(HTTPError):
            _post(port, "/rooms/tea", name="Nobody")


def _say(page: Page, name: str, text: str) -> None:
    page.fill("[name=name]", name)
    page.fill("[name=text]", text)
    page.click("button")


def _wait_messages(page: Page, messages: str) -> None:
    shown = "[...document.querySelectorAll('li')].map((item) => item.textContent).join('|')"
    page.wait_for_function(f"{shown} === {messages!r}")


@runs("recipes/llm.py", "recipes/templates/llm.html")
def test_language_model(place: Path, browser: Browser) -> None:
    """Every page of an answer shows all of its tokens: after a reload, and in another tab."""
    (place / "slow.py").write_text(_SLOW)
    with _serving(place, "slow") as port, browser.new_context() as context:
        first, second = context.new_page(), context.new_page()
        first.goto(f"http://{LOOPBACK}:{port}/")
        for question in ("What is an event?", "Why?"):
            (place / "go").unlink(missing_ok=True)
            first.fill("[name=question]", question)
            first.click("button")
            _wait_answer(first, "You asked:")
            first.reload()
            second.goto(first.url)
            for page in (first, second):
                _wait_answer(page, "You asked:")
            (place / "go").touch()
            for page in (first, second):
                _wait_answer(page, f"You asked: {question}")
                page.wait_for_function("source.readyState === EventSource.CLOSED")
                page.reload()
                _wait_answer(page, f"You asked: {question}")
        # The position is not one of this channel, as when its history has expired.
        first.goto(first.url.replace("answer.", "answer.another-"))
        _wait_answer(first, "This answer is no longer available.")


def _wait_answer(page: Page, text: str) -> None:
    # The page may still be loading.
    shown = "document.querySelector('#answer')?.textContent.trim()"
    page.wait_for_function(f"{shown} === {text!r}")


@runs("recipes/after_commit.py")
def test_after_commit(place: Path, tmp_path: Path, shared_redis: RedisServer) -> None:
    """Committed changes are published, and rolled-back changes are not."""
    (place / "create.py").write_text(
        "import after_commit as orders\n"
        "with orders.app.app_context(), orders.Session(orders.engine) as session:\n"
        "    orders.publish_after_commit(session, 'never')\n"
        "    session.add(orders.Order(item='x'))\n"
        "    session.flush()\n"
        "    session.rollback()\n"
        "    session.commit()\n"
    )
    database = {"DATABASE_URL": f"sqlite:///{tmp_path}/orders.db"}
    with (
        listening(shared_redis, "sse") as payloads,
        _serving(place, "after_commit", **database) as port,
    ):
        shell(f"export DATABASE_URL={database['DATABASE_URL']}; python create.py", place)
        assert json.loads(_post(port, "/orders", item="tea")) == {"id": 1}
        assert payloads() == [{"data": {"id": 1}, "type": "order"}]


@runs(_RQ, "recipes/rq_jobs.py")
def test_rq(place: Path, shared_redis: RedisServer) -> None:
    """A job in an RQ worker publishes each of its steps."""
    worker = f"exec {_RQ.replace('redis://localhost', shared_redis.url)}"
    process = Process(["bash", "-c", worker], 0, place / "rq.log", environment(), place)
    try:
        with listening(shared_redis, "user.alice") as payloads, _serving(place, "rq_jobs") as port:
            _post(port, "/exports/alice")
            assert payloads(3) == [
                {"data": {"page": page, "pages": 3}, "type": "progress"} for page in (1, 2, 3)
            ]
    finally:
        process.stop()


@runs(_CLOCK, "recipes/scheduled.py")
def test_scheduled(place: Path, shared_redis: RedisServer) -> None:
    """The clock publishes every second."""
    (place / "scheduled.py").rename(place / "clock.py")
    with listening(shared_redis, "sse") as payloads:
        command = ["bash", "-c", f"exec {_CLOCK}"]
        process = Process(command, 0, place / "clock.log", environment(), place)
        try:
            for payload in payloads(2):
                assert isinstance(payload, dict)
                assert payload["type"] == "time"
        finally:
            process.stop()


@runs(_HEARTBEAT, "recipes/heartbeat.py")
def test_heartbeat(place: Path, tmp_path: Path) -> None:
    """Channels with clients get heartbeats, again after an outage; other channels get none."""
    server = RedisServer(tmp_path)
    server.start()
    script = place / "heartbeat.py"
    text = script.read_text()
    assert "SECONDS = 20\n" in text
    script.write_text(text.replace("SECONDS = 20\n", "SECONDS = 0.1\n"))
    log = place / "heartbeat.log"
    command = ["bash", "-c", f"exec {_HEARTBEAT}"]
    process = Process(command, 0, log, environment(REDIS_URL=server.url), place)
    try:
        for _ in range(2):
            with (
                listening(server, "secret") as others,
                listening(server, "user.1") as payloads,
            ):
                beats = [{"data": "", "type": "heartbeat"}] * 2
                assert payloads(2)[:2] == beats
                server.admin.publish("secret", '"last"')  # pyright: ignore[reportUnknownMemberType]
                assert others() == ["last"]
            server.stop()
            wait_for(lambda: "The heartbeat was not published." in log.read_text())
            server.start()
    finally:
        process.stop()
        server.stop()
