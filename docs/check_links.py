"""Checks every internal link of the built site: the page, the file and the anchor.

>>> find_broken({"a.html": Page({"top"}, ["#top", "b.html#x", "https://example.org"])}, set())
['a.html: b.html#x']
>>> find_broken({"404.html": Page(set(), ["/en/latest/a.html"])}, {"a.html"})
[]
"""

import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

ROOT: Final = "/en/latest/"
"""Where the links of the page that is served for any path begin."""

_LINKS: Final = {"a": "href", "img": "src", "link": "href", "script": "src"}


class Page(NamedTuple):
    """What a page offers, and where it leads."""

    anchors: set[str]
    links: list[str]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page(set(), [])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for name in ("id", "name"):
            if value := values.get(name):
                self.page.anchors.add(value)
        if link := values.get(_LINKS.get(tag, "")):
            self.page.links.append(link)


def read_page(path: Path) -> Page:
    """Read one page."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def read_site(folder: Path) -> tuple[dict[str, Page], set[str]]:
    """Return the pages of a site, and the names of its other files."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    pages = {name: read_page(folder / name) for name in names if name.endswith(".html")}
    return pages, names - pages.keys()


def find_broken(pages: Mapping[str, Page], files: set[str]) -> list[str]:
    """Return the internal links that lead nowhere."""
    return [
        f"{name}: {link}"
        for name, page in sorted(pages.items())
        for link in page.links
        if not _leads_somewhere(name, link, pages, files)
    ]


def _leads_somewhere(name: str, link: str, pages: Mapping[str, Page], files: set[str]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    folder = "" if parts.path.startswith(ROOT) else dirname(name)
    path = unquote(parts.path.removeprefix(ROOT))
    path = normpath(join(folder, path)) if path else name
    if path in files:
        return True
    anchor = unquote(parts.fragment)
    return path in pages and (not anchor or anchor in pages[path].anchors)


def main() -> int:
    """Check the site in the given folder."""
    pages, files = read_site(Path(sys.argv[1]))
    broken = find_broken(pages, files)
    print("\n".join([*broken, f"{len(pages)} pages, {len(broken)} broken links"]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
