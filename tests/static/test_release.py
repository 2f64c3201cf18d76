"""`make release-check`: what it finds in broken trees, and that this tree can be released."""

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.release import first_event, links, packages, readme, site, version
from tests.release.packages import Installed
from tests.release.problem import Problem
from tests.release.version import CHANGELOG, README, VERSION_FILE
from tests.support.waiting import PATIENCE

_ROOT: Final = Path(__file__).parents[2]
_VERSION: Final = "2.0.0"
_GENERATED: Final = (".*cache", ".git", ".hypothesis", ".venv*", "_build", "dist", "node_modules")
_TODAY: Final = datetime.now(UTC).date()
_NOTICE: Final = "Version 2.0 has not been released yet."
_CHANGES: Final = """# Changelog

## 2.0.0.dev0 - unreleased

Everything is new.

## 1.0.0

The first version.
"""
_PACKAGE: Final = "environment/lib/python*/site-packages/flask_sse"
_DOCUMENTED: Final = "https://flask-sse.readthedocs.io/en/latest/"
_REPOSITORY: Final = "https://github.com/singingwolfboy/flask-sse"


@pytest.fixture
def unprepared(tmp_path: Path) -> Path:
    """Return a tree with the files of which the checks read the text, before a release."""
    tree = tmp_path / "tree"
    for name in (README, "pyproject.toml", "tests/README.md"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_ROOT / name, tree / name)
    (tree / VERSION_FILE).parent.mkdir()
    (tree / VERSION_FILE).write_text('"""A package."""\n\n__version__ = "2.0.0.dev0"\n')
    (tree / CHANGELOG).write_text(_CHANGES)
    _replace(tree / README, "Install Flask-SSE", f"{_NOTICE}\n\nInstall Flask-SSE")
    return tree


@pytest.fixture
def tree(unprepared: Path) -> Path:
    """Return the same tree, prepared for a release."""
    version.prepare(unprepared, _VERSION)
    return unprepared


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _whats(problems: Iterator[Problem]) -> list[str]:
    found = list(problems)
    assert all(problem.remedy for problem in found)
    return [problem.what for problem in found]


def test_preparing(unprepared: Path) -> None:
    """It sets the version, dates the changelog, and removes the README's paragraph, no more."""
    tree = unprepared
    before = (tree / README).read_text(encoding="utf-8").split("\n\n")
    version.prepare(tree, _VERSION)
    assert (tree / VERSION_FILE).read_text() == '"""A package."""\n\n__version__ = "2.0.0"\n'
    changes = _CHANGES.replace("2.0.0.dev0 - unreleased", f"2.0.0 - {_TODAY}")
    assert (tree / CHANGELOG).read_text() == changes
    after = (tree / README).read_text(encoding="utf-8").split("\n\n")
    assert _NOTICE not in after
    assert after == [paragraph for paragraph in before if "not been released" not in paragraph]
    for check in (version.check_version, version.check_changelog, version.check_readme_words):
        assert _whats(check(tree)) == []


@pytest.mark.parametrize("name", ["2.0", "2.0.0.dev1", "v2.0.0", ""])
def test_preparing_something_else(tree: Path, name: str) -> None:
    """It refuses what is not the version of a release."""
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        version.prepare(tree, name)


def test_a_version_of_development(tree: Path) -> None:
    """The version must be final."""
    _replace(tree / VERSION_FILE, f'"{_VERSION}"', '"2.0.0.dev0"')
    (what,) = _whats(version.check_version(tree))
    assert "'2.0.0.dev0' is not the version of a release" in what


def test_another_tag(tree: Path) -> None:
    """The tag must be that of the version."""
    assert _whats(version.check_version(tree, f"v{_VERSION}")) == []
    (what,) = _whats(version.check_version(tree, "v2.0.1"))
    assert what == "The tag is 'v2.0.1', but the version is '2.0.0'."


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (f"## {_VERSION} - ", "## 1.9.0 - ", "the first section is '1.9.0'"),
        (f" - {_TODAY}", "", "the date of the section '2.0.0' is ''"),
        (str(_TODAY), "unreleased", "the date of the section '2.0.0' is 'unreleased'"),
        (str(_TODAY), "2026-13-01", "the date of the section '2.0.0' is '2026-13-01'"),
        (str(_TODAY), str(_TODAY + timedelta(days=2)), "the date of the section '2.0.0' is"),
        ("Everything is new.\n", "", "the section '2.0.0' is empty"),
        ("## 1.0.0\n", "## Unreleased\n\n## 1.0.0\n", "'Unreleased' is called unreleased"),
    ],
)
def test_a_wrong_changelog(tree: Path, old: str, new: str, expected: str) -> None:
    """The first section must be that of the version, with text and a day that is not to come."""
    _replace(tree / CHANGELOG, old, new)
    (what,) = _whats(version.check_changelog(tree))
    assert expected in what


def test_an_old_word_in_the_readme(tree: Path) -> None:
    """The README must not call the version unreleased."""
    _replace(tree / README, "Install Flask-SSE", "Version 2.0 is unreleased. Install Flask-SSE")
    (what,) = _whats(version.check_readme_words(tree))
    assert "Version 2.0 is unreleased" in what


def test_a_readme_that_pypi_cannot_show(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative link leads nowhere there, and a README that can't be rendered is not shown."""
    assert _whats(readme.check_rendering(tree)) == []
    _replace(tree / README, f"({_DOCUMENTED}changelog.html)", "(CHANGELOG.md)")
    (what,) = _whats(readme.check_rendering(tree))
    assert "'CHANGELOG.md' leads nowhere" in what

    def refuse(_: object) -> None:
        """Render nothing."""

    monkeypatch.setattr(readme, "render", refuse)
    assert _whats(readme.check_rendering(tree)) == ["README.md can't be rendered."]


def test_metadata_that_pypi_refuses(tmp_path: Path) -> None:
    """A wheel must have a description."""
    wheel = tmp_path / "flask_sse-2.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "flask_sse-2.0.0.dist-info/METADATA",
            "Metadata-Version: 2.4\nName: Flask-SSE\nVersion: 2.0.0\n",
        )
    (what,) = _whats(readme.check_metadata([wheel]))
    assert "long_description" in what


def test_a_build_that_fails(tree: Path, tmp_path: Path) -> None:
    """The problem has the words of the build."""
    _replace(tree / "pyproject.toml", 'path = "flask_sse/__init__.py"', 'path = "missing.py"')
    (what,) = _whats(packages.build(tree, tmp_path / "dist"))
    assert what.startswith("The build has failed:\n")
    assert "missing.py" in what


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a wheel and a source distribution."""
    dist = tmp_path_factory.mktemp("dist")
    assert _whats(packages.build(_ROOT, dist)) == []
    return dist


def test_a_build_of_another_version(built: Path, tmp_path: Path) -> None:
    """Files of an earlier build must not be taken for those of this one."""
    dist = shutil.copytree(built, tmp_path / "dist")
    (dist / "flask_sse-1.0.0.tar.gz").touch()
    (what,) = _whats(packages.build(_ROOT, dist))
    assert "'flask_sse-1.0.0.tar.gz'" in what
    assert "not one *.tar.gz" in what


def test_a_package_that_cannot_be_installed(tmp_path: Path) -> None:
    """Nothing else is tried then."""
    wheel = tmp_path / "flask_sse-2.0.0-py3-none-any.whl"
    wheel.write_bytes(b"not an archive")
    (what,) = _whats(packages.try_out(_ROOT, wheel, tmp_path / "installed"))
    assert what.startswith(f"{wheel.name} can't be installed:\n")


@pytest.fixture(scope="module")
def whole(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel in an empty environment."""
    (wheel,) = built.glob("*.whl")
    folder = tmp_path_factory.mktemp("installed") / "whole"
    assert _whats(packages.install(_ROOT, wheel, folder)) == []
    return Installed(folder, wheel.name)


@pytest.fixture
def installed(whole: Installed, tmp_path: Path) -> Installed:
    """Return a copy, which the test may break."""
    folder = shutil.copytree(whole.folder, tmp_path / "installed", symlinks=True)
    return Installed(folder, whole.name)


_TRIED: Final[dict[str, Callable[[Installed], Iterator[Problem]]]] = {
    "import": partial(packages.try_import, version=version.read_version(_ROOT)),
    "commands": packages.try_commands,
    "quickstart": packages.try_quickstart,
}


@pytest.mark.long
@pytest.mark.parametrize("name", _TRIED)
def test_a_whole_package(whole: Installed, name: str) -> None:
    """Everything works as it is."""
    assert _whats(_TRIED[name](whole)) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "broken", "expected"),
    [
        ("import", "_event/message.py", "No module named 'flask_sse._event.message'"),
        ("commands", "_cli/commands.py", "No module named 'flask_sse._cli.commands'"),
        ("quickstart", "_hub/hub.py", "No module named 'flask_sse._hub.hub'"),
    ],
)
def test_a_package_that_lacks_a_module(
    installed: Installed, name: str, broken: str, expected: str
) -> None:
    """Each trial notices what is missing for it."""
    (package,) = installed.folder.glob(_PACKAGE)
    (package / broken).unlink()
    (what,) = _whats(_TRIED[name](installed))
    assert expected in what


@pytest.mark.long
def test_a_package_of_another_version(whole: Installed) -> None:
    """What was installed must be this version."""
    (what,) = _whats(packages.try_import(whole, "9.9.9"))
    assert version.read_version(_ROOT) in what


def test_documentation_with_a_warning(tmp_path: Path) -> None:
    """Sphinx must not warn."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "conf.py").touch()
    (docs / "index.rst").write_text("Title\n=====\n\n:doc:`missing`\n")
    (what,) = _whats(site.build(tmp_path, tmp_path / "site"))
    assert "unknown document: 'missing'" in what


def _page(folder: Path, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(f"<html><body>{body}</body></html>")
    return folder


def test_old_words_in_the_documentation(tmp_path: Path) -> None:
    """No page may call the version unreleased; names in its source don't count."""
    pages = _page(tmp_path / "site", '<p class="unreleased">Nothing.</p>')
    assert _whats(site.check_words(pages)) == []
    _page(pages, "<p>First. Version 2.0 has not <b>been</b> released yet. Last.</p>")
    assert _whats(site.check_words(pages)) == [
        "index.html: 'Version 2.0 has not been released yet.'"
    ]


@pytest.mark.parametrize(
    ("works", "broken"),
    [
        ("#here", "#missing"),
        ("index.html", "missing.html"),
        (f"{_DOCUMENTED}index.html#here", f"{_DOCUMENTED}index.html#missing"),
        (_DOCUMENTED, f"{_DOCUMENTED}missing.html"),
        (f"{_REPOSITORY}/blob/main/README.md#try-it", f"{_REPOSITORY}/blob/main/README.md#no"),
        (f"{_REPOSITORY}/tree/main/tests", f"{_REPOSITORY}/tree/main/missing"),
        (f"{_REPOSITORY}/issues", f"{_REPOSITORY}/edit/main/missing.rst"),
    ],
)
def test_broken_links_of_the_documentation(tmp_path: Path, works: str, broken: str) -> None:
    """Links to other pages, and into the repository, must lead to what exists."""
    pages = _page(tmp_path / "site", f'<p id="here"><a href="{works}">works</a></p>')
    assert _whats(links.check_site(_ROOT, pages)) == []
    _page(pages, f'<p id="here"><a href="{broken}">broken</a></p>')
    (what,) = _whats(links.check_site(_ROOT, pages))
    assert broken in what


@pytest.mark.parametrize(
    ("works", "broken"),
    [
        ("[x](tests/README.md#where-a-test-belongs)", "[x](tests/README.md#missing)"),
        ("[x](#try-it)", "[x](#missing)"),
        ("[x](pyproject.toml)", "[x](missing.toml)"),
        (f"{_REPOSITORY}/blob/main/pyproject.toml", f"{_REPOSITORY}/blob/main/missing.toml"),
        (f"{_DOCUMENTED}index.html#here", f"{_DOCUMENTED}index.html#missing"),
    ],
)
def test_broken_links_of_other_files(tree: Path, tmp_path: Path, works: str, broken: str) -> None:
    """So must those of the README and of other files that are read in the repository."""
    pages = _page(tmp_path / "site", '<p id="here">Here.</p>')
    for name in ("changelog.html", "contributing.html", "quickstart.html", "_static/demo.png"):
        (pages / name).parent.mkdir(exist_ok=True)
        (pages / name).touch()
    end = "## Read on"
    _replace(tree / README, end, f"{works}\n\n{end}")
    assert _whats(links.check_files(tree, pages)) == []
    _replace(tree / README, works, broken)
    (what,) = _whats(links.check_files(tree, pages))
    assert what.startswith("README.md: the link ")


@pytest.mark.long
def test_first_event(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From an empty folder, the quickstart leads to an event on a page; each step is timed."""
    (wheel,) = built.glob("*.whl")
    seconds = first_event.walk(wheel, tmp_path)
    steps = capsys.readouterr().out.splitlines()
    assert len(steps) == 5
    assert sum(float(step.split()[0]) for step in steps) == pytest.approx(seconds, abs=1)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of this tree."""
    return shutil.copytree(_ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(*_GENERATED))


def test_the_command_fails(copy: Path) -> None:
    """It names each check that fails, with a remedy, goes on, and ends with a status of 1."""
    _replace(copy / "pyproject.toml", 'path = "flask_sse/__init__.py"', 'path = "missing.py"')
    (copy / "docs" / "conf.py").write_text("1 / 0")
    status, output = _command(copy, "--tag", "v0.0.1")
    assert status == 1
    failed = re.findall(r"^failed  (.*) \(", output, re.MULTILINE)
    assert [*failed[:1], *failed[-2:]] == ["version", "build", "documentation"]
    assert "\n    Delete the tag, and set the tag v" in output
    assert "\nok      README on PyPI (" in output
    assert output.endswith(f"\n{len(failed)} failed\n")


def test_the_command_prepares(copy: Path) -> None:
    """It prepares a tree, or says what is wrong with the version."""
    assert _command(copy, "--prepare", _VERSION) == (0, "")
    assert version.read_version(copy) == _VERSION
    status, output = _command(copy, "--prepare", "2.0")
    assert status == 2
    assert "VERSION is '2.0'; it must have three numbers" in output


@pytest.mark.long
@pytest.mark.timeout(15 * PATIENCE)
def test_this_tree(copy: Path) -> None:
    """A copy of this tree that was prepared passes every check."""
    assert _command(copy, "--prepare", _VERSION) == (0, "")
    status, output = _command(copy, "--tag", f"v{_VERSION}")
    assert status == 0, output
    assert output.endswith(f"\n{_VERSION} can be released.\n")
    outcomes = [line.split(maxsplit=1)[0] for line in output.splitlines()[:-1]]
    assert outcomes == ["ok"] * 12


def _command(tree: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.release", *arguments],
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=10 * PATIENCE,
    )
    return done.returncode, done.stdout
