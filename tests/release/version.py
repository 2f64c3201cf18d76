"""The version, and what the files of the tree say about it."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from tests.release.problem import Problem

VERSION_FILE: Final = "flask_sse/__init__.py"
CHANGELOG: Final = "CHANGELOG.md"
README: Final = "README.md"

_ASSIGNMENT: Final = re.compile(r'^__version__ = "([^"]*)"$', re.MULTILINE)
_FINAL: Final = re.compile(r"\d+\.\d+\.\d+")
_SECTION: Final = re.compile(r"^## (\S+)(?: - (\S+))?\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_UNRELEASED: Final = re.compile(r"unreleased|not been released", re.IGNORECASE)


def read_version(tree: Path) -> str:
    """Return the version, from the file from which the build takes it."""
    found = _ASSIGNMENT.findall((tree / VERSION_FILE).read_text(encoding="utf-8"))
    return found[0] if len(found) == 1 else ""


def is_final(version: str) -> bool:
    """Whether it is the version of a release, not one of development."""
    return _FINAL.fullmatch(version) is not None


def check_version(tree: Path, tag: str | None = None) -> Iterator[Problem]:
    """The version is final, and is that of the tag.

    :param tag: The name of the tag, if there is one.
    """
    version = read_version(tree)
    if not is_final(version):
        yield Problem(
            f"{VERSION_FILE}: {version!r} is not the version of a release.",
            "Run: make release VERSION=1.2.3 (with the version to be released).",
        )
    if tag is not None and tag != f"v{version}":
        yield Problem(
            f"The tag is {tag!r}, but the version is {version!r}.",
            f"Delete the tag, and set the tag v{version} on the commit with this version.",
        )


def check_changelog(tree: Path) -> Iterator[Problem]:
    """The first section is that of the version, with text and a date; none is unreleased."""
    sections = _SECTION.findall((tree / CHANGELOG).read_text(encoding="utf-8"))
    version = read_version(tree)
    name, day, text = sections[0] if sections else ("", "", "")
    if name != version:
        yield Problem(
            f"{CHANGELOG}: the first section is {name!r}, but the version is {version!r}.",
            f'Begin it with a section "## {version} - {_today()}" about what has changed.',
        )
    elif not text.strip():
        yield Problem(
            f"{CHANGELOG}: the section {name!r} is empty.", "Say there what users will notice."
        )
    if not _is_past(day):
        yield Problem(
            f"{CHANGELOG}: the date of the section {name!r} is {day!r}.",
            f"Give it the day of the release, which `make release` does: {_today()}.",
        )
    for name, day, _ in sections[1:]:
        if _UNRELEASED.search(f"{name} {day}"):
            yield Problem(
                f"{CHANGELOG}: the section {name!r} is called unreleased.",
                f"Move its entries to the section {version!r}, and remove it.",
            )


def check_readme_words(tree: Path) -> Iterator[Problem]:
    """The README does not call the version unreleased."""
    for number, line in enumerate((tree / README).read_text(encoding="utf-8").splitlines(), 1):
        if _UNRELEASED.search(line):
            yield Problem(
                f"{README}, line {number}: {line!r}", "Remove the paragraph that says so."
            )


def prepare(tree: Path, version: str) -> None:
    """Set the version, date its section of the changelog, and tell the README about the release.

    :raises ValueError: If *version* is not the version of a release.
    """
    if not is_final(version):
        raise ValueError(f"VERSION is {version!r}; it must have three numbers, as in 2.0.0.")
    _rewrite(tree / VERSION_FILE, _ASSIGNMENT, f'__version__ = "{version}"')
    heading = re.compile(r"^## \S+ - unreleased$", re.MULTILINE)
    _rewrite(tree / CHANGELOG, heading, f"## {version} - {_today()}")
    readme = tree / README
    paragraphs = readme.read_text(encoding="utf-8").split("\n\n")
    kept = [paragraph for paragraph in paragraphs if not _UNRELEASED.search(paragraph)]
    readme.write_text("\n\n".join(kept), encoding="utf-8")


def _rewrite(path: Path, pattern: re.Pattern[str], replacement: str) -> None:
    text = path.read_text(encoding="utf-8")
    path.write_text(pattern.sub(replacement, text, count=1), encoding="utf-8")


def _today() -> date:
    return datetime.now(UTC).date()


def _is_past(text: str) -> bool:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return False
    return day <= _today()
