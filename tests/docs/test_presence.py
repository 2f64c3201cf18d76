"""What the page on presence shows: an example, and the rights that a user of Redis needs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Route

from tests.support.presence import use_presence
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT

from .running import runs, serving_app, shell

_DOCS: Final = ROOT / "docs"
_COMMAND: Final = re.compile(r"^   \$ (redis-cli ACL SETUSER .*)$", re.MULTILINE)
_ACL: Final = _COMMAND.findall((_DOCS / "presence.rst").read_text(encoding="utf-8"))
_ACL_OF_HISTORY: Final = _COMMAND.findall((_DOCS / "history.rst").read_text(encoding="utf-8"))


@runs("presence/room.py", "presence/templates/room.html")
def test_a_room(folder: Path, browser: Browser) -> None:
    """Each page shows all users, once, and those who leave are gone."""
    place = folder / "presence"
    with (
        serving_app("room", place) as url,
        browser.new_context() as alice,
        browser.new_context() as bob,
    ):
        assert alice.request.get(f"{url}/rooms/1/events").status == 403
        for user, context in (("alice", alice), ("bob", bob)):
            context.request.post(f"{url}/login", form={"user": user})
        first, second, other = alice.new_page(), alice.new_page(), bob.new_page()
        shown = "document.querySelector('output').textContent"
        for page in (first, second):
            page.goto(f"{url}/rooms/1")
            page.wait_for_function(f"{shown} === 'alice'")
        other.goto(f"{url}/rooms/1")
        for page in (first, second, other):
            page.wait_for_function(f"{shown} === 'alice, bob'")
        first.close()
        second.reload()
        second.wait_for_function(f"{shown} === 'alice, bob'")
        other.goto(f"{url}/rooms/2")
        other.wait_for_function(f"{shown} === 'bob'")
        second.wait_for_function(f"{shown} === 'alice'")
        assert alice.request.get(f"{url}/rooms/1/members").json().keys() == {"alice"}


def test_a_list_that_fails(folder: Path, browser: Browser) -> None:
    """The page requests the list of members again."""
    answers: list[Callable[[Route], None]] = [Route.abort, lambda route: route.fulfill(status=503)]
    with serving_app("room", folder / "presence") as url, browser.new_context() as context:
        context.request.post(f"{url}/login", form={"user": "alice"})
        shown = "document.querySelector('output').textContent === 'alice'"
        # The second page gets no event about a join, so only the list can show the member.
        first, page = context.new_page(), context.new_page()
        first.goto(f"{url}/rooms/1")
        first.wait_for_function(shown)
        page.route(
            "**/members", lambda route: answers.pop(0)(route) if answers else route.continue_()
        )
        page.goto(f"{url}/rooms/1")
        page.wait_for_function(shown)
        assert not answers


@runs(*_ACL)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="plain"),
        pytest.param({"SSE_HISTORY": 10}, id="history", marks=pytest.mark.long),
    ],
)
def test_user_of_redis(
    tmp_path: Path, redis_server: RedisServer, channel: str, settings: dict[str, Any]
) -> None:
    """The user may do everything that presence needs, also on channels with history."""
    for command in (*_ACL, *(_ACL_OF_HISTORY if settings else ())):
        shell(command.replace("redis-cli", f"redis-cli -p {redis_server.port}"), tmp_path)
    url = redis_server.url.replace("://", "://app:secret@")
    use_presence(tmp_path, url, channel, redis_server.admin, **settings)
