"""What has to be there before a run: virtual environments, and programs built from source."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .processes import end, log_tail

_INSTALL_SECONDS: Final = 900
_VERSIONS: Final = """
import json, platform
from importlib.metadata import distributions
names = {d.metadata["Name"]: d.version for d in distributions()}
print(json.dumps({"Python": platform.python_version(), **names}))
"""


class InstallError(Exception):
    """Something could not be installed or built."""


def environment(folder: Path, requirements: Sequence[str], depends_on: Sequence[Path] = ()) -> Path:
    """Make sure that ``folder`` is a virtual environment with ``requirements``; return its ``bin``.

    It is made anew when the requirements, or one of the files that they depend on, have changed.
    """
    wanted = "\n".join(
        [
            sys.version,
            *requirements,
            *(hashlib.sha256(file.read_bytes()).hexdigest() for file in depends_on),
        ]
    )
    stamp = folder / "requirements.stamp"
    if not stamp.is_file() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run_logged([sys.executable, "-m", "venv", folder], folder / "venv.log")
        run_logged(
            [folder / "bin" / "python", "-m", "pip", "install", *requirements],
            folder / "install.log",
        )
        stamp.write_text(wanted)
    return folder / "bin"


def package_versions(binaries: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of those ``names`` that the environment has."""
    done = subprocess.run(
        [binaries / "python", "-c", _VERSIONS],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    installed: dict[str, str] = json.loads(done.stdout)
    known = {name.lower(): version for name, version in installed.items()}
    return {name: known[name.lower()] for name in ("Python", *names) if name.lower() in known}


def compiled(source: Path, program: Path) -> Path | None:
    """Compile a C file, return ``program``; ``None`` where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    run_logged([compiler, "-O2", "-Wall", "-o", program, source], program.with_suffix(".log"))
    return program


def output_of(command: Sequence[str | Path]) -> str:
    """Return what a short command says, on either output."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, text=True, timeout=60
    )
    return done.stdout.strip()


def run_logged(command: Sequence[str | Path], log: Path) -> None:
    """Run a command to its end, raise with the tail of its output if it fails."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(_INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            # pip has children of its own.
            end(process)
    if status != 0:
        what = (
            f"failed with status {status}" if status else f"is not done after {_INSTALL_SECONDS} s"
        )
        raise InstallError(f"{command[0]} {what}{log_tail(log)}")
