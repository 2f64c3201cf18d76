"""A wall clock that a test can set, for a Redis and for a site in Python."""

import subprocess
from pathlib import Path
from typing import Final

from tests.support.processes import find_program

# faketime's library breaks `time.sleep` of Python 3.11 and later.
_FOR_PYTHON: Final = """
import os, time
real = time.time
def moved():
    with open(os.environ["CLOCK_FILE"]) as file:
        return real() + int(file.read())
time.time = moved
time.time_ns = lambda: int(moved() * 1e9)
"""


class Clock:
    """The time of day of some processes; clocks that measure durations are not changed.

    :param folder: The folder of the file from which the processes read the difference.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "clock"
        (folder / "sitecustomize.py").write_text(_FOR_PYTHON)
        self.move(0)

    @property
    def of_redis(self) -> dict[str, str]:
        """The environment for a redis-server."""
        listing = subprocess.run(
            [find_program("faketime"), "-f", "+0", "env"],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        [library] = [
            line.partition("=")[2]
            for line in listing.splitlines()
            if line.startswith("LD_PRELOAD=")
        ]
        return {
            # The allocator of Redis asks for the time before it can allocate anything.
            "LD_PRELOAD": f"{library}:libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    @property
    def of_python(self) -> dict[str, str]:
        """The environment for a server in Python."""
        return {"PYTHONPATH": str(self._folder), "CLOCK_FILE": str(self._file)}

    def move(self, seconds: int) -> None:
        """Set the difference from the machine's clock, in seconds."""
        # A process that reads the file at the same time finds it complete.
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
