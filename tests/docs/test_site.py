"""The site as a whole: pages, links, URLs, and builds."""

import json
import re
import runpy
import sys
import tomllib
import warnings
from html import unescape
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from statistics import median
from typing import Any, Final
from xml.etree import ElementTree

import check_links
import inventories
import pytest
import summaries
from click import Group
from flask import Flask
from sphinx.util.inventory import InventoryFile

import flask_sse
from tests.support.servers import ROOT

from .conftest import BuiltSite

PAGES: Final = {
    "index": "Flask-SSE",
    "quickstart": "Quickstart",
    "configuration": "Configuration",
    "advanced": "Advanced Usage",
    "browser": "In the browser",
    "recipes": "Recipes",
    "scaling": "Scaling and monitoring",
    "troubleshooting": "Troubleshooting",
    "choosing": "Choosing",
    "history": "History",
    "streams": "Streams in code",
    "presence": "Presence",
    "deployment": "Deployment",
    "command-line": "Command line",
    "guarantees": "Guarantees",
    "performance": "Performance",
    "typing": "Typing",
    "signals": "Signals",
    "testing": "Testing your app",
    "migrating": "Coming from 1.0",
    "api": "API",
    "changelog": "Changelog",
    "architecture": "Architecture",
    "contributing": "Contributing",
    "security": "Security",
}
BASE: Final = f"https://flask-sse.readthedocs.io{check_links.ROOT}"
"""The default URL of the site."""

OLD_ADDRESSES: Final = {
    "index.html": (),
    "quickstart.html": ("quickstart",),
    "configuration.html": ("configuration", "redis", "application-server"),
    "advanced.html": ("advanced-usage", "channels", "access-control"),
    "api.html": (
        "api",
        "flask_sse.Message",
        "flask_sse.Message.__init__",
        "flask_sse.Message.__str__",
        "flask_sse.Message.to_dict",
        "flask_sse.ServerSentEventsBlueprint",
        "flask_sse.ServerSentEventsBlueprint.messages",
        "flask_sse.ServerSentEventsBlueprint.publish",
        "flask_sse.ServerSentEventsBlueprint.redis",
        "flask_sse.ServerSentEventsBlueprint.stream",
        "flask_sse.sse",
    ),
}
"""The anchors in the documentation of 1.0, in its order."""

MEMBERS: Final = {
    "flask_sse.presence.Member.since",
    "flask_sse.presence.Member.streams",
    *(f"flask_sse.Message.{name}" for name in ("data", "type", "id", "retry")),
    *(f"flask_sse.testing.Harness.{name}" for name in ("app", "open", "published")),
    *(f"flask_sse.testing.Published.{name}" for name in ("channel", "message")),
    "flask_sse.history.ChannelMessage.channel",
    "flask_sse.testing.ReceivedMessage.json",
    *(
        f"flask_sse.testing.Stream.{name}"
        for name in ("channels", "ended", "get", "last_event_id", "response", "retry", "timeout")
    ),
}
"""The members of the classes in the public submodules."""


def test_pages(site: BuiltSite) -> None:
    """The site has exactly these pages, each with its title."""
    titles = {
        path.stem: re.search(r"<h1>([^<]*)<", path.read_text(encoding="utf-8"))
        for path in site.html.glob("*.html")
        if path.stem not in {"404", "genindex", "py-modindex", "search"}
    }
    assert {name: match and match[1] for name, match in titles.items()} == PAGES


@pytest.mark.parametrize("name", ["docs/index.rst", "README.md"])
def test_best_figure(name: str) -> None:
    """The home page and the README promise no more than the benchmark has measured."""
    text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
    assert "more than a million events per second" in text
    assert "40 times as many as" in text
    figures = json.loads((ROOT / "docs" / "performance-table.json").read_text(encoding="utf-8"))
    bursts = {
        name: median(each["burst_per_s"] for each in rounds)
        for name, rounds in figures["side_by_side"].items()
        if name.startswith("flask-sse")
    }
    best = max(bursts.values())
    assert best > 1_000_000
    assert best > 40 * bursts["flask-sse-1"]


def test_links(site: BuiltSite) -> None:
    """Every internal link leads to an existing page or file, and to an existing anchor."""
    pages, files = check_links.read_site(site.html)
    assert sum(len(page.links) for page in pages.values()) > 500
    assert check_links.find_broken(pages, files) == []


@pytest.mark.parametrize("page", OLD_ADDRESSES)
def test_old_addresses(site: BuiltSite, page: str) -> None:
    """Links into the documentation of 1.0 still lead to what they meant, in the old order."""
    text = (site.html / page).read_text(encoding="utf-8")
    positions = [text.find(f'id="{anchor}"') for anchor in OLD_ADDRESSES[page]]
    assert -1 not in positions
    assert positions == sorted(positions)


def test_inventory(site: BuiltSite) -> None:
    """Other projects can link to every public name and every setting, and to nothing private."""
    inventory = _load(site.html / "objects.inv")
    names = {name for role, names in inventory.items() if role.startswith("py:") for name in names}
    anchors = {anchor for anchor in OLD_ADDRESSES["api.html"] if anchor.startswith("flask_sse.")}
    modules = {"flask_sse"}
    for found in iter_modules(flask_sse.__path__, "flask_sse."):
        if "._" not in found.name:
            public: list[str] = import_module(found.name).__all__
            modules |= {found.name, *(f"{found.name}.{name}" for name in public)}
    assert names == modules | anchors | MEMBERS
    source = (ROOT / "flask_sse" / "_settings.py").read_text(encoding="utf-8")
    keys = set(re.findall(r'"((?:SSE_)?[A-Z]+(?:_[A-Z]+)+)"', source))
    assert set(inventory["std:confval"]) == keys
    assert set(inventory["std:cli-command"]) == {f"flask sse {name}" for name in _commands()}
    assert set(inventory["std:fixture"]) == {"sse_harness"}


def test_signatures(site: BuiltSite) -> None:
    """Types in a signature are parsed, and a context manager is not shown as a generator."""
    page = (site.html / "api.html").read_text(encoding="utf-8")
    titles = re.findall(r'<dt class="sig[^>]* id="([^"]+)">(.*?)</dt>', page, re.DOTALL)
    shown = {name: unescape(re.sub(r"<[^>]+>", "", title)) for name, title in titles}
    assert [name for name, title in shown.items() if "~" in title or " object>" in title] == []
    assert "blueprint: ServerSentEventsBlueprint = sse" in shown["flask_sse.streams.stream"]
    for name in ("harness", "open_stream", "record"):
        assert "→ AbstractContextManager[" in shown[f"flask_sse.testing.{name}"]


def test_settings_are_described_in_full(site: BuiltSite) -> None:
    """Each setting has a type and a default, and new settings have a version."""
    text = (ROOT / "docs" / "configuration.rst").read_text(encoding="utf-8")
    entries = re.split(r"^\.\. confval:: ", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(_load(site.html / "objects.inv")["std:confval"])
    for entry in entries:
        assert ":type:" in entry, entry
        assert ":default:" in entry, entry
        assert entry.startswith(("SSE_REDIS_URL", "REDIS_URL")) or "versionadded:: 2.0" in entry


@pytest.mark.parametrize("name", PAGES)
def test_unreleased(site: BuiltSite, name: str) -> None:
    """Until there is a release, each page says so; afterwards, none does."""
    page = (site.html / f"{name}.html").read_text(encoding="utf-8")
    is_unreleased = "dev" in flask_sse.__version__
    assert ("Version 2.0 is unreleased" in page) is is_unreleased
    assert ("Flask-SSE 2.0 (unreleased)</title>" in page) is is_unreleased
    assert is_unreleased or "not been released" not in page
    added = re.findall(r"(?:Added|New|Changed) in version ([^<]+)\.<", page)
    assert {*added} <= {"2.0 (unreleased)" if is_unreleased else "2.0"}
    assert bool(added) is (name == "configuration")


@pytest.mark.parametrize("project", inventories.NAMES)
def test_names_of_other_projects(site: BuiltSite, project: str) -> None:
    """The inventories are those that the script writes, without unused entries."""
    committed = _load(inventories.FOLDER / f"{project}.inv")
    listed = {(name.role, name.name) for name in inventories.NAMES[project]}
    assert {(role, name) for role, names in committed.items() for name in names} == listed
    text = "".join(path.read_text(encoding="utf-8") for path in site.html.glob("*.html"))
    unused = {
        name.name
        for name in inventories.NAMES[project]
        if f'/{name.location.replace("$", name.name)}"' not in text
    }
    assert unused == set()


def test_every_inventory_is_there() -> None:
    """A missing file would silently become a download."""
    found = {path.stem for path in inventories.FOLDER.glob("*.inv")}
    assert found == set(inventories.NAMES)
    configuration = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    assert set(re.findall(r"_inventory/(\w+)\.inv", configuration)) == found


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_says_about_itself(site: BuiltSite, name: str) -> None:
    """It has its canonical URL, and metadata for search engines and previews of links."""
    page = (site.html / f"{name}.html").read_text(encoding="utf-8")
    url = f"{BASE}{name}.html"
    assert f'<link rel="canonical" href="{url}"' in page
    found = re.findall(r'<meta (?:name|property)="([^"]+)" content="([^"]*)"', page)
    tags = dict(found)
    assert [name for name, _ in found].count("description") == 1
    assert tags["og:url"] == url
    assert tags["og:title"] == PAGES[name]
    assert tags["og:site_name"] == "Flask-SSE"
    assert len(tags["og:description"]) > 20
    assert not tags["og:description"].endswith(":")
    assert tags["description"] == tags["og:description"]
    assert (site.html / tags["og:image"].removeprefix(BASE)).is_file()


def test_descriptions() -> None:
    """A sentence that only introduces the next text is left out, unless it is the only one."""
    assert summaries.without_lead("It has signals. See flask_sse.signals:") == "It has signals."
    assert summaries.without_lead("Run this:") == "Run this:"
    assert summaries.without_lead("It has signals. See them.") == "It has signals. See them."


def test_url_on_read_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each version that Read the Docs builds has its final URL."""
    monkeypatch.setenv("READTHEDOCS_CANONICAL_URL", "https://docs.example/de/2.0/")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    with warnings.catch_warnings():
        configuration = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    assert configuration["html_baseurl"] == "https://docs.example/de/2.0/"
    assert configuration["ogp_site_url"] == "https://docs.example/de/2.0/"
    assert configuration["notfound_urls_prefix"] == "/de/2.0/"
    assert '"/de/2.0/index.html"' in configuration["notfound_context"]["body"]


@pytest.mark.parametrize("name", PAGES)
def test_repository_links(site: BuiltSite, name: str) -> None:
    """Every page leads to the repository, and to its own source, for reading and for editing."""
    page = (site.html / f"{name}.html").read_text(encoding="utf-8")
    repository = _project()["urls"]["Source"]
    assert f'href="{repository}"' in page
    (edited,) = re.findall(rf'href="{repository}/edit/main/([^"?]+)"', page)
    (viewed,) = re.findall(rf'href="{repository}/blob/main/([^"?]+)\?plain=true"', page)
    assert edited == viewed
    assert (ROOT / edited).is_file()


def test_sitemap(site: BuiltSite) -> None:
    """It lists exactly the pages, with their URLs."""
    sitemap = ElementTree.parse(site.html / "sitemap.xml")
    locations = [each.text for each in sitemap.iterfind("{*}url/{*}loc")]
    assert sorted(filter(None, locations)) == sorted(f"{BASE}{name}.html" for name in PAGES)


def test_page_for_a_url_that_leads_nowhere(site: BuiltSite) -> None:
    """It is served in any folder, so each of its links starts at the root."""
    page = check_links.read_page(site.html / "404.html")
    inside = [link for link in page.links if not link.startswith(("https://", "#"))]
    assert {link for link in inside if not link.startswith(check_links.ROOT)} == set()
    assert {f"{check_links.ROOT}search.html", f"{check_links.ROOT}index.html"} <= {*inside}
    assert "<h1>Page not found</h1>" in (site.html / "404.html").read_text(encoding="utf-8")


def test_list_for_language_models(site: BuiltSite) -> None:
    """It names each page with its URL and its topic."""
    text = (site.html / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# Flask-SSE\n\n> Flask-SSE sends server-sent events")
    entries = re.findall(r"^- \[([^]]+)\]\(([^)]+)\): \S", text, re.MULTILINE)
    assert sorted(entries) == sorted(
        (title, f"{BASE}{name}.html") for name, title in PAGES.items() if name != "index"
    )
    assert f"{BASE}llms-full.txt" in text


def test_text_for_language_models(site: BuiltSite) -> None:
    """It has all pages, with the docstrings and examples that their sources only name."""
    text = (site.html / "llms-full.txt").read_text(encoding="utf-8")
    assert [title for title in PAGES.values() if f"\n{title}\n" not in f"\n{text}"] == []
    for setting in _load(site.html / "objects.inv")["std:confval"]:
        assert setting in text
    example = (ROOT / "docs" / "examples" / "app.py").read_text(encoding="utf-8")
    assert example.strip().splitlines()[-1] in text
    assert "class flask_sse.Message(" in text
    assert "<a " not in text


def test_logo(site: BuiltSite) -> None:
    """It is the icon and is above the contents; it is drawn, and loads nothing."""
    page = (site.html / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<link rel="(?:shortcut )?icon" href="_static/logo\.svg', page)
    assert 'class="sidebar-logo" src="_static/logo.svg' in page
    logo = ElementTree.parse(site.html / "_static" / "logo.svg").getroot()
    assert logo.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [name for each in logo.iter() for name in each.attrib if name.endswith("href")]


def test_links_of_the_package() -> None:
    """The project's page on PyPI links to the site and to the repository."""
    urls = _project()["urls"]
    assert urls.keys() == {"Documentation", "Changelog", "Source", "Issues"}
    assert urls["Changelog"] == f"{BASE}changelog.html"
    assert urls["Issues"] == f"{urls['Source']}/issues"


def test_links_of_the_readme(site: BuiltSite) -> None:
    """They are absolute, since PyPI shows the README too, and those into the site lead to files."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 4
    assert [link for link in links if not link.startswith("https://")] == []
    inside = [link.removeprefix(BASE) for link in links if link.startswith(BASE)]
    assert [link for link in inside if not (site.html / link).is_file()] == []


def test_read_the_docs() -> None:
    """Read the Docs builds in the same way: strictly, with the same packages."""
    lines = (ROOT / ".readthedocs.yaml").read_text(encoding="utf-8").splitlines()
    assert "  configuration: docs/conf.py" in lines
    assert "  fail_on_warning: true" in lines
    assert [line for line in lines if re.fullmatch(r'    python: "3\.1\d"', line)]
    assert [line for line in lines if "--constraint constraints.txt --group docs" in line]


def test_every_dependency_has_its_reason() -> None:
    """The tables for contributors name exactly the project's dependencies."""
    lists = [
        _project()["dependencies"],
        *_project()["optional-dependencies"].values(),
        *_pyproject()["dependency-groups"].values(),
    ]
    declared = {
        re.split(r"[\[<>=]", requirement)[0]
        for requirements in lists
        for requirement in requirements
        if isinstance(requirement, str)
    }
    npm = json.loads((ROOT / "tests" / "clients" / "package.json").read_text(encoding="utf-8"))
    declared |= npm["dependencies"].keys()
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z@][^|]*) \|", text.partition("## What it depends on")[2], re.M)
    named = {name for row in rows for name in re.split(r", (?:with )?", row)}
    assert named - {"lupa"} == declared


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _project() -> dict[str, Any]:
    project: dict[str, Any] = _pyproject()["project"]
    return project


def _commands() -> set[str]:
    app = Flask(__name__)
    app.register_blueprint(flask_sse.sse, url_prefix="/stream")
    group = app.cli.commands["sse"]
    assert isinstance(group, Group)
    return {*group.commands}


def _load(path: Path) -> dict[str, dict[str, Any]]:
    # The form of Sphinx's own reader has changed between its versions.
    loaded: Any = InventoryFile.loads(path.read_bytes(), uri="")
    data: dict[str, dict[str, Any]] = getattr(loaded, "data", loaded)
    return data
