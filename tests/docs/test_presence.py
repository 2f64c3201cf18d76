"""The example of the page on presence."""

from pathlib import Path

from playwright.sync_api import Browser

from .running import runs, serving_app


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
