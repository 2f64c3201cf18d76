"""The recipes: each is served as on the page, and used."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Page

from tests.support.processes import Process
from tests.support.redis_server import RedisServer

from .running import environment, listening, post, runs, serving_app, shell, wait_for

_RQ: Final = "rq worker --url redis://localhost"
_CLOCK: Final = "python clock.py"
_HEARTBEAT: Final = "python heartbeat.py"


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


@runs("recipes/progress.py", "recipes/templates/progress.html")
def test_progress(place: Path, page: Page) -> None:
    """The progress bar of a finished job is full, and the stream is closed."""
    with serving_app("progress", place) as url:
        job = json.loads(post(f"{url}/jobs"))["id"]
        page.goto(f"{url}/jobs/{job}")
        page.wait_for_function("bar.value === 20 && bar.max === 20")
        page.wait_for_function("source.readyState === EventSource.CLOSED")
        page.reload()
        page.wait_for_function("bar.value === 20")


@pytest.mark.long
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
        serving_app("after_commit", place, **database) as url,
    ):
        shell(f"export DATABASE_URL={database['DATABASE_URL']}; python create.py", place)
        assert json.loads(post(f"{url}/orders", item="tea")) == {"id": 1}
        assert payloads() == [{"data": {"id": 1}, "type": "order"}]


@pytest.mark.long
@runs(_RQ, "recipes/rq_jobs.py")
def test_rq(place: Path, shared_redis: RedisServer) -> None:
    """A job in an RQ worker publishes each of its steps."""
    worker = f"exec {_RQ.replace('redis://localhost', shared_redis.url)}"
    process = Process(["bash", "-c", worker], 0, place / "rq.log", environment(), place)
    try:
        with (
            listening(shared_redis, "user.alice") as payloads,
            serving_app("rq_jobs", place) as url,
        ):
            post(f"{url}/exports/alice")
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


@pytest.mark.long
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
