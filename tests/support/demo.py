"""The page of the demo in a browser's windows."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import BrowserContext, Locator, Page

from tests.support import servers
from tests.support.processes import LOOPBACK, free_port, running
from tests.support.servers import DEMO, Site

# The page chooses a name and a colour at random, but a picture of it must always be the same.
_CHOOSE: Final = """
let random = %d;
Math.random = () => (random = (random * 16807) %% 2147483647) / 2147483647;
"""


def serve(folder: Path) -> AbstractContextManager[Site]:
    """Serve the demo as `make demo` does."""
    return servers.gunicorn(folder, app="pointers:app", cwd=DEMO, environment={"REDIS_URL": ""})


@contextmanager
def serve_with_flask(
    folder: Path, *, redis_url: str = "", port: int | None = None
) -> Iterator[Site]:
    """Serve it with Flask's own server, which stops immediately."""
    port = port or free_port()
    command = [sys.executable, "-m", "flask", "--app", "pointers", "run", "--port", str(port)]
    log = folder / f"flask-{port}.log"
    with running(command, port, log, env={"REDIS_URL": redis_url}, cwd=DEMO) as process:
        yield Site(process)


class Window:
    """A window with the page, whose streams are open."""

    def __init__(self, context: BrowserContext, port: int, *, seed: int | None = None) -> None:
        self.errors: list[str] = []
        """The errors of the page's script."""
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        if seed is not None:
            self.page.add_init_script(_CHOOSE % seed)
        self.page.goto(f"http://{LOOPBACK}:{port}/")
        self.wait_light("Connected")

    def wait_light(self, text: str) -> None:
        """Wait until the light says something."""
        self.page.get_by_role("status").get_by_text(text).wait_for()

    def button(self, name: str) -> Locator:
        """Return a button by its name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def publish(self, text: str, channel: str = "sse") -> None:
        """Fill in the form and send it."""
        self.page.get_by_role("radio", name=channel).check()
        self.page.get_by_role("textbox", name="Text").fill(text)
        self.button("Publish").click()

    def row(self, text: str, channel: str = "sse") -> Locator:
        """Return the events of a channel that contain a text."""
        return self.page.locator(f"#channel-{channel} li").filter(has_text=text)

    def tab(self) -> str:
        """Return the name that the page has chosen."""
        own = self.page.locator(".cursor", has_text="(you)")
        return own.get_attribute("data-tab") or ""

    def point(self, x: float, y: float) -> None:
        """Move the pointer to a position in the shared field, as fractions of its size."""
        box = self.page.get_by_role("application").bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])

    def pointer(self, tab: str) -> Locator:
        """Return the pointer of a tab as this window shows it."""
        return self.page.locator(f".cursor[data-tab='{tab}']")
