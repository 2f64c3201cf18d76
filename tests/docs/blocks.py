"""Every code block of the documentation and of the README."""

import pickle
import re
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, NamedTuple

from docutils import nodes

from tests.support.servers import ROOT

EXAMPLES: Final = ROOT / "docs" / "examples"


class Kind(Enum):
    """How a block is run."""

    DOCTEST = auto()
    """The doctest builder runs it."""
    FILE = auto()
    """A file of `docs/examples`, or a part of one."""
    CONSOLE = auto()
    """Commands of a shell."""
    OTHER = auto()


class Block(NamedTuple):
    """One code block."""

    page: str
    kind: Kind
    language: str
    text: str
    file: str = ""

    @property
    def commands(self) -> list[str]:
        """The commands that are shown after a prompt."""
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line[:2] == "$ "]


def read_blocks(doctrees: Path) -> list[Block]:
    """Return the blocks of all pages, and of the README."""
    pages = [block for path in sorted(doctrees.glob("*.doctree")) for block in _of_page(path)]
    return [*pages, *_of_readme()]


def _of_page(path: Path) -> Iterator[Block]:
    document: nodes.document = pickle.loads(path.read_bytes())
    for node in document.findall(nodes.FixedTextElement):
        if isinstance(node, nodes.doctest_block | nodes.literal_block):
            yield _block(path.stem, node)


def _block(page: str, node: nodes.FixedTextElement) -> Block:
    attributes: dict[str, Any] = node.attributes
    text = node.astext()
    language: str = attributes.get("language", "python")
    source = Path(attributes.get("source", ""))
    if isinstance(node, nodes.doctest_block) or "testnodetype" in attributes:
        return Block(page, Kind.DOCTEST, "python", text)
    if source.is_relative_to(EXAMPLES):
        return Block(page, Kind.FILE, language, text, source.relative_to(EXAMPLES).as_posix())
    kind = Kind.CONSOLE if language == "console" else Kind.OTHER
    return Block(page, kind, language, text)


def _of_readme() -> Iterator[Block]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S):
        kind = Kind.CONSOLE if language == "console" else Kind.OTHER
        yield Block("README", kind, language, code)
