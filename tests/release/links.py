"""Links into the repository and into the documentation."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

from tests.release.problem import Problem

_MARKDOWN_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_URL: Final = re.compile(r"https://[^\s<>)\"'`]+")
_HREF: Final = re.compile(r'<a [^>]*href="([^"]+)"')
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FILE: Final = re.compile(r"/(?:blob|edit|raw|tree)/[^/]+/(.+)")
_LATEST: Final = "/en/latest/"
_REMEDY: Final = "Let it lead to what exists, or remove it."


class _Places(NamedTuple):
    """Where links lead that can be followed without a network."""

    tree: Path
    repository: str
    site: Path
    documentation: str


def check_site(tree: Path, site: Path) -> Iterator[Problem]:
    """The links of the built pages, to one another and into the repository."""
    command = [sys.executable, str(tree / "docs" / "check_links.py"), str(site)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    if checked.returncode:
        *broken, _ = checked.stdout.splitlines() or [checked.stderr]
        for link in broken:
            yield Problem(f"The documentation: {link}", _REMEDY)
    places = _places(tree, site)
    for page in sorted(site.rglob("*.html")):
        for link in _HREF.findall(page.read_text(encoding="utf-8")):
            if not _leads_somewhere(_find(link, places), urldefrag(link).fragment):
                yield _problem(page.relative_to(site), link)


def check_files(tree: Path, site: Path) -> Iterator[Problem]:
    """The links of the files that are read in the repository or on PyPI."""
    places = _places(tree, site)
    for path in _files(tree):
        text = path.read_text(encoding="utf-8")
        found = [link.rstrip(".,") for link in _URL.findall(text)]
        if path.suffix == ".md":
            found += _MARKDOWN_LINK.findall(text)
        for link in dict.fromkeys(found):
            url, anchor = urldefrag(link)
            target = _find(link, places)
            if target is None and not urlsplit(link).scheme:
                target = path.parent / unquote(url) if url else path
            if not _leads_somewhere(target, anchor):
                yield _problem(path.relative_to(tree), link)


def _files(tree: Path) -> Iterator[Path]:
    yield from sorted(tree.glob("*.md"))
    yield tree / "pyproject.toml"
    yield tree / "tests" / "README.md"
    github = tree / ".github"
    yield from sorted(path for path in github.rglob("*") if path.suffix in {".md", ".yml"})


def _places(tree: Path, site: Path) -> _Places:
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls: dict[str, str] = project["urls"]
    return _Places(tree, urls["Source"], site, urls["Documentation"])


def _problem(where: Path, link: str) -> Problem:
    return Problem(f"{where.as_posix()}: the link {link!r} leads nowhere.", _REMEDY)


def _find(link: str, places: _Places) -> Path | None:
    """Return the file of the repository or the page to which a URL leads, if it is one."""
    url = unquote(urlsplit(link).path)
    if link.startswith(places.repository):
        found = _FILE.fullmatch(url.removeprefix(urlsplit(places.repository).path))
        return places.tree / found[1] if found else None
    if link.startswith(places.documentation):
        return places.site / (url.removeprefix(_LATEST).strip("/") or "index.html")
    return None


def _leads_somewhere(path: Path | None, anchor: str) -> bool:
    if path is None:
        return True
    if not anchor or path.suffix not in {".md", ".html"}:
        return path.exists()
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        return f'id="{unquote(anchor)}"' in text
    return unquote(anchor) in {_slug(heading) for heading in _HEADING.findall(text)}


def _slug(heading: str) -> str:
    """Return the anchor of a heading, as the repository's web pages make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
