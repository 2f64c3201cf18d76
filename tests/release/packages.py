"""The wheel and the source distribution: built, installed in an empty environment, and tried."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple
from urllib.request import urlopen

from tests.release.problem import Problem
from tests.release.version import read_version
from tests.support.processes import LOOPBACK, free_port, running
from tests.support.waiting import PATIENCE
from tests.support.wheels import OFFLINE

_BIN: Final = Path(sys.executable).parent
_UV: Final = str(_BIN / "uv")
_EXAMPLE: Final = "docs/examples/one_minute.py"
_SHOW_VERSION: Final = "import flask_sse; print(flask_sse.__version__, flask_sse.__file__)"
_COMMANDS: Final = ("publish", "listen", "channels", "doctor")
_ALONE: Final = {"PYTHONPATH": "", "PYTHONSAFEPATH": "", "VIRTUAL_ENV": ""}
_GREETING: Final = [b"event:greeting\n", b'data:{"message": "Hello!"}\n']


def build(tree: Path, dist: Path) -> Iterator[Problem]:
    """The source distribution is built from the tree, and the wheel from that."""
    # In an environment of its own, the build would need a network to get its backend.
    options = ["--no-build-isolation", "--python", sys.executable]
    built = _run([_UV, "build", *options, "--out-dir", str(dist), str(tree)], tree)
    if built.returncode:
        yield Problem(f"The build has failed:\n{_last_lines(built)}", "See pyproject.toml.")
        return
    version = read_version(tree)
    for pattern in ("*.tar.gz", "*.whl"):
        names = [path.name for path in dist.glob(pattern)]
        if len(names) != 1 or f"-{version}" not in names[0]:
            yield Problem(
                f"The build has made {names}, not one {pattern} of {version!r}.",
                "See [tool.hatch.version] in pyproject.toml.",
            )


class Installed(NamedTuple):
    """A folder with the quickstart's application, and an environment that runs it."""

    folder: Path
    name: str
    """The file that was installed."""

    @property
    def python(self) -> str:
        """The environment's Python."""
        return str(self.folder / "environment" / "bin" / "python")

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the environment's Python."""
        return _run([self.python, *arguments], self.folder)


def install(tree: Path, package: Path, folder: Path) -> Iterator[Problem]:
    """A wheel, or a source distribution, can be installed in an empty environment.

    :param folder: Where the environment and the application are put.
    """
    folder.mkdir()
    shutil.copy(tree / _EXAMPLE, folder / "app.py")
    environment = str(folder / "environment")
    _run([_UV, "venv", "--quiet", "--python", sys.executable, environment], folder)
    python = Installed(folder, package.name).python
    command = [_UV, "pip", "install", "--quiet", "--python", python, f"{package}[memory]"]
    installed = _run(command, folder)
    if installed.returncode:
        yield Problem(
            f"{package.name} can't be installed:\n{_last_lines(installed)}",
            "See the dependencies in pyproject.toml, and run: make clean test-unit",
        )


def try_import(installed: Installed, version: str) -> Iterator[Problem]:
    """The package can be imported, and has the version."""
    imported = installed.run("-W", "error", "-c", _SHOW_VERSION)
    name, _, path = imported.stdout.strip().partition(" ")
    if imported.returncode or name != version or not path.startswith(str(installed.folder)):
        yield Problem(
            f"With {installed.name}, `import flask_sse` gives:\n{_last_lines(imported)}",
            "See [tool.hatch.build] in pyproject.toml: a module may be missing.",
        )


def try_commands(installed: Installed) -> Iterator[Problem]:
    """The application has the commands."""
    done = installed.run("-m", "flask", "--app", "app", "sse", "--help")
    missing = [name for name in _COMMANDS if name not in done.stdout]
    if done.returncode or missing:
        yield Problem(
            f"With {installed.name}, `flask sse --help` gives:\n{_last_lines(done)}",
            "See flask_sse/_cli, and what it imports.",
        )


def try_quickstart(installed: Installed) -> Iterator[Problem]:
    """The quickstart's page receives its first event."""
    port = free_port()
    command = [installed.python, "-m", "flask", "run", "--port", str(port)]
    log = installed.folder / "log.txt"
    try:
        with running(command, port, log, env=OFFLINE | _ALONE, cwd=installed.folder):
            received = _first_event(port)
    except (OSError, AssertionError) as error:
        received = [repr(error).encode()]
    if received != _GREETING:
        yield Problem(
            f"With {installed.name}, the page of {_EXAMPLE} receives {received} in place of a "
            f"greeting. The server's log:\n{log.read_text(encoding='utf-8')}",
            f"Run it in an environment with nothing but {installed.name}[memory] in it.",
        )


def try_out(tree: Path, package: Path, folder: Path) -> Iterator[Problem]:
    """All of this; without an installation nothing else is tried."""
    problems = list(install(tree, package, folder))
    yield from problems
    if not problems:
        installed = Installed(folder, package.name)
        yield from try_import(installed, read_version(tree))
        yield from try_commands(installed)
        yield from try_quickstart(installed)


def _first_event(port: int) -> list[bytes]:
    """Open the stream, greet, and return the lines of the first event."""
    site = f"http://{LOOPBACK}:{port}"
    with closing(urlopen(f"{site}/stream", timeout=PATIENCE)) as stream:
        # The first line says that the stream is subscribed.
        stream.readline()
        urlopen(f"{site}/hello", timeout=PATIENCE).close()
        lines = [line for line in (stream.readline() for _ in range(4)) if not line.isspace()]
    return [line for line in lines if not line.startswith(b":")][:2]


def _run(command: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **OFFLINE, **_ALONE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=4 * PATIENCE,
    )


def _last_lines(done: "subprocess.CompletedProcess[str]") -> str:
    return "\n".join(done.stdout.splitlines()[-15:])
