"""A real, headless Chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, expect, sync_playwright

from tests.support.waiting import PATIENCE

# Playwright's own 5 s and 30 s are short where several browsers share two cores.
expect.set_options(timeout=PATIENCE * 1000)

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the system's browser until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_path(), args=_OPTIONS)
        yield browser
        browser.close()


@contextmanager
def with_page_cache(first: Browser) -> Iterator[Browser]:
    """Run another browser, with the back/forward cache that Playwright turns off."""
    browser = first.browser_type.launch(
        executable_path=_path(),
        args=_OPTIONS,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield browser
    browser.close()


def _path() -> str:
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    assert path, f"none of {_NAMES} is installed; run: make system"
    return path
