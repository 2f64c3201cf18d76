"""``python -m tests.release.first_event``: the quickstart's minute, with a clock beside it.

In an empty folder, it makes an environment, installs the wheel of this tree, starts the first
example, opens its page in a browser, and sends a greeting. What pip installs has been downloaded
before.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from tests.release import packages
from tests.support.chromium import chromium
from tests.support.processes import LOOPBACK, free_port, running
from tests.support.waiting import PATIENCE
from tests.support.wheels import OFFLINE

_TREE: Final = Path(__file__).parents[2]
_EXAMPLE: Final = _TREE / "docs" / "examples" / "one_minute.py"


class Clock:
    """Prints how long each step has taken."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def step(self, name: str) -> None:
        """End a step."""
        now = time.monotonic()
        print(f"{now - self._last:6.1f} s  {name}", flush=True)
        self._last = now

    @property
    def seconds(self) -> float:
        """How long all steps have taken."""
        return self._last - self._start


def walk(wheel: Path, folder: Path) -> float:
    """Go from an empty folder to the first event in a page; return the seconds."""
    clock = Clock()
    _run([sys.executable, "-m", "venv", ".venv"], folder)
    clock.step("a virtual environment")
    python = str(folder / ".venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, f"{wheel}[memory]"], folder)
    clock.step("pip install 'Flask-SSE[memory]'")
    shutil.copy(_EXAMPLE, folder / "app.py")
    port = free_port()
    site = f"http://{LOOPBACK}:{port}"
    command = [python, "-m", "flask", "run", "--port", str(port)]
    with running(command, port, folder / "log.txt", cwd=folder):
        clock.step("flask run: it listens")
        with chromium() as browser:
            page = browser.new_page()
            with page.expect_response(f"{site}/stream"):
                page.goto(site)
            clock.step("a browser: its stream is open")
            urlopen(f"{site}/hello", timeout=PATIENCE).close()
            page.get_by_text("Hello!").wait_for(timeout=PATIENCE * 1000)
            clock.step("the first event is on the page")
    return clock.seconds


def _run(command: Sequence[str], folder: Path) -> None:
    environment = {**os.environ, **OFFLINE, "PYTHONPATH": ""}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=4 * PATIENCE)


def main() -> int:
    """Build the wheel, and walk."""
    with tempfile.TemporaryDirectory(prefix="flask-sse-") as temporary:
        dist, folder = Path(temporary, "dist"), Path(temporary, "empty")
        folder.mkdir()
        for problem in packages.build(_TREE, dist):
            print(problem)
            return 1
        (wheel,) = dist.glob("*.whl")
        print(f"{walk(wheel, folder):6.1f} s  in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
