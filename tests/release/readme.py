"""The README as PyPI shows it."""

import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from readme_renderer.markdown import render

from tests.release.problem import Problem
from tests.release.version import README

_TARGETS: Final = {"a": "href", "img": "src"}


def check_metadata(packages: list[Path]) -> Iterator[Problem]:
    """PyPI accepts what the packages say about themselves."""
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict"]
    checked = subprocess.run(
        [*command, *map(str, packages)], capture_output=True, text=True, check=False
    )
    if checked.returncode:
        yield Problem(
            f"twine check: {checked.stdout}{checked.stderr}", "See [project] in pyproject.toml."
        )


def check_rendering(tree: Path) -> Iterator[Problem]:
    """PyPI can render the README, and its links lead somewhere from there, too."""
    # For Markdown, `twine check` does not look.
    html = render((tree / README).read_text(encoding="utf-8"))
    if html is None:
        yield Problem(f"{README} can't be rendered.", "Use plain Markdown without raw HTML.")
        return
    reader = _Reader()
    reader.feed(html)
    for link in reader.links:
        if not link.startswith(("https://", "#")):
            yield Problem(
                f"{README}: the link {link!r} leads nowhere on PyPI.",
                "Write the whole URL, of the documentation if it is there.",
            )


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if link := dict(attrs).get(_TARGETS.get(tag, "")):
            self.links.append(link)
