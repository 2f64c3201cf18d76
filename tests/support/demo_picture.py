"""Takes the picture of the demo for the README: ``python -m tests.support.demo_picture FILE``."""

import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from playwright.sync_api import ViewportSize

from tests.support import demo
from tests.support.chromium import chromium
from tests.support.demo import Window

SIZE: Final[ViewportSize] = {"width": 1200, "height": 900}
SEEDS: Final = (222, 268, 52, 112)
"""Each determines a window's name and colour; chosen by looking at the results."""

CENTERS: Final = ((0.46, 0.76), (0.66, 0.42), (0.87, 0.26), (0.88, 0.76))

# Moves the pointer on an arc, as a hand would.
_DRAW: Final = """
([x, y, angle]) => {
  const field = document.getElementById("field");
  const box = field.getBoundingClientRect();
  setInterval(() => {
    angle += 0.12;
    field.dispatchEvent(new PointerEvent("pointermove", {
      clientX: box.left + box.width * (x + 0.08 * Math.cos(angle)),
      clientY: box.top + box.height * (y + 0.17 * Math.sin(angle)),
    }));
  }, 50);
}
"""


def take(path: Path) -> None:
    """Open windows, let things happen in them, and take a picture of the first."""
    with TemporaryDirectory() as folder, chromium() as browser, ExitStack() as stack:
        site = stack.enter_context(demo.serve(Path(folder)))
        windows: list[Window] = []
        for seed in SEEDS:
            # Each is a separate browser: the windows of one share six connections.
            context = browser.new_context(viewport=SIZE)
            stack.callback(context.close)
            windows.append(Window(context, site.port, seed=seed))
        first, second, third, fourth = windows
        first.page.get_by_text(f"{len(windows)} windows").wait_for()
        fourth.publish("The build is green.", "live")
        first.row("The build is green.", "live").wait_for()
        first.button("Drop the connection").click()
        first.row("missed", "live").wait_for()
        second.button("Send 1,000").click()
        first.row("1,000 of 1,000").wait_for()
        third.publish("Good morning!")
        third.publish("Good morning here as well.", "live")
        first.row("Good morning").wait_for()
        first.row("Good morning", "live").wait_for()
        first.page.evaluate("scrollTo(0, 0)")
        for index, (window, (x, y)) in enumerate(zip(windows, CENTERS, strict=True)):
            window.page.evaluate(_DRAW, [x, y, 2.4 * index])
        first.page.wait_for_timeout(2500)
        first.page.screenshot(path=path)


if __name__ == "__main__":
    take(Path(sys.argv[1]))
