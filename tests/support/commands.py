"""Commands of `flask`, run as in a shell."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.servers import ROOT, SITE
from tests.support.waiting import PATIENCE, wait_until

FLASK: Final = (sys.executable, "-m", "flask", "--app", SITE)


class Command:
    """A command that runs until it ends or is stopped."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, errors: Path) -> None:
        self._process = process
        self._output = output
        self._errors = errors

    @property
    def output(self) -> list[str]:
        """The lines that it has written."""
        return self._output.read_text(encoding="utf-8").splitlines()

    @property
    def errors(self) -> list[str]:
        """The lines that it has written to standard error, for people."""
        return self._errors.read_text(encoding="utf-8").splitlines()

    def wait_errors(self, number: int) -> list[str]:
        """Wait until it has written this many lines to standard error."""
        wait_until(lambda: len(self.errors) >= number, f"{number} lines, not {self.errors}")
        return self.errors

    def wait_output(self, number: int) -> list[str]:
        """Wait until it has written this many lines."""
        wait_until(lambda: len(self.output) >= number, f"{number} lines, not {self.output}")
        return self.output

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def wait_end(self) -> int:
        """Wait for its end; return its exit status."""
        return self._process.wait(PATIENCE)


@contextmanager
def flask_command(
    folder: Path,
    *arguments: str,
    settings: Mapping[str, object],
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
) -> Iterator[Command]:
    """Run `flask` with arguments until the block ends.

    :param stdin: Its standard input.
    :param stdout: Where to write its output instead of a file.
    """
    output, errors = folder / "output", folder / "errors"
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [*FLASK, *arguments],
            stdin=stdin,
            stdout=out if stdout is None else stdout,
            stderr=err,
            cwd=ROOT,
            env={**os.environ, **settings_in_environment(settings)},
        )
    try:
        yield Command(process, output, errors)
    finally:
        process.kill()
        process.wait()


def settings_in_environment(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the environment from which the site reads its settings."""
    return {f"FLASK_{key}": json.dumps(value) for key, value in settings.items()}
