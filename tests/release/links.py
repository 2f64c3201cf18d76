"""Links into the repository and into the documentation."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urldefrag, urlsplit

from tests.release.problem import Problem

_MARKDOWN_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_URL: Final = re.compile(r"https://[^\s<>)\"'`]+")
_HREF: Final = re.compile(r'<a [^>]*href="([^"]+)"')
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FILE: Final = re.compile(r"/(?:blob|edit|raw|tree)/[^/]+/(.+)")
_LATEST: Final = "/en/latest/"
_REMEDY: Final = "Let it lead to what exists, or remove it."


def check_site(tree: Path, site: Path) -> Iterator[Problem]:
    """The links of the built pages, to one another and into the repository."""
    command = [sys.executable, str(tree / "docs" / "check_links.py"), str(site)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    if checked.returncode:
        *broken, _ = checked.stdout.splitlines() or [checked.stderr]
        for link in broken:
            yield Problem(f"The documentation: {link}", _REMEDY)
    for page in sorted(site.rglob("*.html")):
        for link in _HREF.findall(page.read_text(encoding="utf-8")):
            yield from _check(link, page.relative_to(site).as_posix(), tree, site)


def check_files(tree: Path, site: Path) -> Iterator[Problem]:
    """The links of the files that are read in the repository or on PyPI."""
    for path in _files(tree):
        name = path.relative_to(tree).as_posix()
        text = path.read_text(encoding="utf-8")
        found = _URL.findall(text)
        if path.suffix == ".md":
            found += _MARKDOWN_LINK.findall(text)
        for link in dict.fromkeys(link.rstrip(".,") for link in found):
            yield from _check(link, name, tree, site, path.parent)


def _files(tree: Path) -> Iterator[Path]:
    yield from sorted(tree.glob("*.md"))
    yield tree / "pyproject.toml"
    yield tree / "tests" / "README.md"
    github = tree / ".github"
    yield from sorted(path for path in github.rglob("*") if path.suffix in {".md", ".yml"})


def _check(
    link: str, where: str, tree: Path, site: Path, folder: Path | None = None
) -> Iterator[Problem]:
    """Check one link.

    :param where: The page or file that has it.
    :param folder: The folder in which relative links begin, if they lead to files of the tree.
    """
    urls = _urls(tree)
    url, anchor = urldefrag(link)
    path: Path | None = None
    if url.startswith(urls["Source"]):
        found = _FILE.fullmatch(urlsplit(url.removeprefix(urls["Source"])).path)
        path = tree / unquote(found[1]) if found else None
    elif url.startswith(urls["Documentation"]):
        path = site / (urlsplit(url).path.removeprefix(_LATEST).strip("/") or "index.html")
    elif folder is not None and not urlsplit(link).scheme:
        path = folder / unquote(url) if url else tree / where
    if path is not None and not _leads_somewhere(path, anchor):
        yield Problem(f"{where}: the link {link!r} leads nowhere.", _REMEDY)


def _leads_somewhere(path: Path, anchor: str) -> bool:
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


def _urls(tree: Path) -> Mapping[str, str]:
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls: Mapping[str, str] = project["urls"]
    return urls
