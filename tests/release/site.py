"""The documentation: built from the tree, and read."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from tests.release.problem import Problem
from tests.support.waiting import PATIENCE

_UNRELEASED: Final = re.compile(r"unreleased|not been released", re.IGNORECASE)
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+|\n{2,}")
_NO_TEXT: Final = {"script", "style", "svg"}


def build(tree: Path, site: Path) -> Iterator[Problem]:
    """Sphinx builds the documentation without a warning."""
    options = ["-n", "-W", "--keep-going", "-q", "-b", "html", "-d", str(site.with_suffix(".d"))]
    command = [sys.executable, "-m", "sphinx", *options, str(tree / "docs"), str(site)]
    built = subprocess.run(
        command, cwd=tree, capture_output=True, text=True, check=False, timeout=10 * PATIENCE
    )
    if built.returncode:
        yield Problem(f"The documentation: {built.stderr}", "Mend the page, and run: make docs")


def check_words(site: Path) -> Iterator[Problem]:
    """No page calls the version unreleased."""
    for page in sorted(site.rglob("*.html")):
        for sentence in _SENTENCE_END.split(read_text(page)):
            if _UNRELEASED.search(sentence):
                yield Problem(
                    f"{page.relative_to(site)}: {' '.join(sentence.split())!r}",
                    "Put the sentence into the directive `unreleased`, which releases leave out.",
                )


def read_text(page: Path) -> str:
    """Return the text that a reader of a page sees."""
    reader = _Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return "".join(reader.text)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in _NO_TEXT

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in _NO_TEXT

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data)
