"""The wheel as a user's type checkers see it, in an environment with nothing else in it."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.waiting import PATIENCE
from tests.support.wheels import OFFLINE

from .test_signatures import NAMES, SUBMODULES

_ROOT: Final = Path(__file__).parents[2]
_BIN: Final = Path(sys.executable).parent
# In an environment of its own, the build would need a network to get its backend.
_BUILD: Final = (str(_BIN / "uv"), "build", "--quiet", "--no-build-isolation", "--python")
_VERSIONS: Final = [
    "3.11",
    *(pytest.param(version, marks=pytest.mark.long) for version in ("3.12", "3.13", "3.14")),
]
_TEST_FILE: Final = """
from flask import Flask
from flask_sse import Message, sse

app = Flask(__name__)
app.register_blueprint(sse, url_prefix="/stream")

def test_greeting(sse_harness):
    stream = sse_harness(app).open()
    with app.app_context():
        sse.publish("Hello!", type="greeting")
    assert stream.get() == Message("Hello!", type="greeting")
"""
_USER_CODE: Final = [
    path for path in (_ROOT / "tests" / "typing").glob("*.py") if path.stem != "__init__"
]


class Built(NamedTuple):
    """What is uploaded."""

    sdist: Path
    wheel: Path
    """Built from the sdist."""


class User(NamedTuple):
    """Where a user has installed the wheel, and works."""

    python: Path
    folder: Path

    def run(self, command: Sequence[str]) -> str:
        """Run a tool of ours in the user's environment."""
        path = f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"
        return _run(command, self.folder, {"PATH": path, "VIRTUAL_ENV": ""})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist from the working tree, and the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    _run([*_BUILD, sys.executable, "--out-dir", str(folder), str(_ROOT)], folder)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def user(built: Built, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Install the wheel, and what it depends on, in a new environment."""
    folder = tmp_path_factory.mktemp("user")
    python = folder / "environment" / "bin" / "python"
    uv = str(_BIN / "uv")
    _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder / "environment")], folder)
    _run([uv, "pip", "install", "--quiet", "--python", str(python), str(built.wheel)], folder)
    project = folder / "project"
    project.mkdir()
    for path in _USER_CODE:
        shutil.copy(path, project)
    settings = {
        "typeCheckingMode": "strict",
        "enableTypeIgnoreComments": False,
        "reportUnnecessaryTypeIgnoreComment": True,
    }
    (project / "pyrightconfig.json").write_text(json.dumps(settings))
    return User(python, project)


def test_sdist_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    """A build from the sdist is the same as one from the repository."""
    _run([*_BUILD, sys.executable, "--wheel", "--out-dir", str(tmp_path), str(_ROOT)], tmp_path)
    (direct,) = tmp_path.glob("*.whl")
    assert _contents(built.wheel) == _contents(direct)


def test_wheel_holds_the_package_alone(built: Built) -> None:
    """The package with its type marker, its pytest plugin and what describes it, but no tests."""
    names = set(_contents(built.wheel))
    tops = {name.partition("/")[0].partition("-")[0] for name in names}
    plugin = "_flask_sse_pytest.py"
    assert tops == {"flask_sse", plugin}
    assert "flask_sse/py.typed" in names
    modules = {str(path.relative_to(_ROOT)) for path in (_ROOT / "flask_sse").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == {*modules, plugin}
    scripts = {name for name in names if name.endswith(".lua")}
    assert scripts == {
        f"flask_sse/_redis/{name}.lua" for name in ("append", "leases", "log", "members", "read")
    }


def test_sdist_holds_what_it_takes_to_check_it(built: Built) -> None:
    """Tests and documentation come along, and nothing that was generated."""
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "docs/conf.py",
    }
    assert names >= expected
    assert not [name for name in names if "/_build/" in name or "__pycache__" in name]


def test_verified_types(user: User) -> None:
    """Every type is known, and the public symbols are the documented ones."""
    command = [str(_BIN / "basedpyright"), "--verifytypes", "flask_sse", "--ignoreexternal"]
    report = json.loads(user.run([*command, "--outputjson"]))["typeCompleteness"]
    assert Path(report["packageRootDirectory"]).is_relative_to(user.python.parents[1])
    assert report["completenessScore"] == 1
    modules = {"flask_sse", *(f"flask_sse.{name}" for name in SUBMODULES)}
    assert {module["name"] for module in report["modules"]} == modules
    exported = {symbol["name"] for symbol in report["symbols"] if symbol["isExported"]}
    # Members of a class are listed where the class is defined.
    assert {name for name in exported if name.rpartition(".")[0] in modules} == {
        *(f"flask_sse.{name}" for name in NAMES),
        *(f"flask_sse.{name}.{one}" for name, module in SUBMODULES.items() for one in module),
    }
    assert report["missingFunctionDocStringCount"] == 0
    assert report["missingClassDocStringCount"] == 0


@pytest.mark.parametrize("version", _VERSIONS)
def test_mypy(user: User, version: str) -> None:
    """A user's typed code passes, and its mistakes are found."""
    executable = ["--python-executable", str(user.python), "--python-version", version]
    options = ["--strict", "--no-error-summary", "--cache-dir", str(user.folder / ".cache")]
    assert user.run([str(_BIN / "mypy"), *options, *executable, "."]) == ""


@pytest.mark.long
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_pyright(user: User, version: str) -> None:
    """A user's typed code passes, and its mistakes are found."""
    found = user.run([str(_BIN / "basedpyright"), "--pythonversion", version])
    assert found == "0 errors, 0 warnings, 0 notes\n"


@pytest.fixture(scope="module")
def project(built: Built, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Return an empty project but for a test, with the wheel before the packages of ours."""
    folder = tmp_path_factory.mktemp("project")
    target = folder / "packages"
    install = ["pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    _run([str(_BIN / "uv"), *install, "--python", sys.executable, str(built.wheel)], folder)
    (folder / "test_greeting.py").write_text(_TEST_FILE)
    return User(Path(sys.executable), folder)


def _pytest(project: User, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *options],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(project.folder / "packages"), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * PATIENCE,
    )


def test_a_test_file_of_a_few_lines(project: User) -> None:
    """In an empty project, a test of a user's has the fixture without any configuration."""
    assert len([line for line in _TEST_FILE.splitlines() if line]) <= 10
    done = _pytest(project)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 passed" in done.stdout


def test_the_fixture_can_be_left_out(project: User) -> None:
    """The option that pytest has for it leaves the fixture out."""
    done = _pytest(project, "-p", "no:flask_sse")
    assert done.returncode == 1
    assert "fixture 'sse_harness' not found" in done.stdout


def test_an_application_may_start_pytest(project: User) -> None:
    """A process that has imported the package, such as a command, can call `pytest.main`."""
    start = (
        "import sys, pytest, flask_sse; "
        "sys.exit(pytest.main(['-W', 'error', '-p', 'no:cacheprovider', '-p', 'no:anyio']))"
    )
    path = str(project.folder / "packages")
    done = _run([sys.executable, "-c", start], project.folder, {"PYTHONPATH": path})
    assert "1 passed" in done


def test_the_package_does_not_need_pytest(project: User) -> None:
    """Neither the package nor what tests import of it imports pytest."""
    code = (
        "import sys; sys.modules['pytest'] = None; import flask_sse; "
        "assert 'flask_sse.testing' not in sys.modules; "
        "import flask_sse.testing; print(flask_sse.__file__)"
    )
    path = str(project.folder / "packages")
    assert _run([sys.executable, "-c", code], project.folder, {"PYTHONPATH": path}).startswith(path)


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _run(command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **OFFLINE, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
