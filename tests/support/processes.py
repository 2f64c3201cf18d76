"""Processes that a test starts and stops."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from tests.support.waiting import PATIENCE, wait_until

LOOPBACK: Final = "127.0.0.1"

_ENDS_WITHIN: Final = 20
"""Seconds after which a process that was told to end is killed."""


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Whether a server accepts connections on *port*."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def find_program(name: str) -> str:
    """Return the path of a program that `make system` installs."""
    # Debian installs servers in a folder that only root has in its path.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    assert path, f"{name} is not installed; run: make system"
    return path


def _follow_greenlets(command: Sequence[str]) -> dict[str, str]:
    """Return what makes coverage follow the greenlets of a server that has some.

    It does not in other processes, which may then hang: when a thread ends that has used
    greenlets, as coverage does, greenlet runs code in a pending call, and Python 3.11, if it
    traces that code while there is another pending call, executes one instruction for ever.
    """
    found = os.environ.get("COVERAGE_PROCESS_CONFIG")
    if found is None or not any("gevent" in part or "eventlet" in part for part in command):
        return {}
    config = json.loads(base64.b64decode(found))
    config["concurrency"] = ["thread", "gevent"]
    return {"COVERAGE_PROCESS_CONFIG": base64.b64encode(json.dumps(config).encode()).decode()}


class Process:
    """A process that listens on a port and writes a log."""

    def __init__(
        self, command: Sequence[str], port: int, log: Path, env: Mapping[str, str], cwd: Path | None
    ) -> None:
        self.port = port
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_follow_greenlets(command), **env},
                cwd=cwd,
                start_new_session=True,
            )
        self.info = psutil.Process(self._popen.pid)

    def wait_listening(self) -> None:
        """Wait until it accepts connections."""
        wait_until(
            lambda: self._popen.poll() is not None or is_listening(self.port),
            f"{self.log.stem} listens on {self.port}",
        )
        if self._popen.poll() is not None:
            raise AssertionError(f"{self.log.stem} has ended:\n{self.log.read_text()}")

    def children(self) -> list[psutil.Process]:
        """Return its child processes."""
        found: list[psutil.Process] = self.info.children()
        return found

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; return its exit status."""
        return self._popen.wait(seconds)

    def stop(self) -> None:
        """End it with all its children, by force if necessary."""
        if self._popen.poll() is None:
            family = [self.info, *self.info.children(recursive=True)]
            self._popen.send_signal(signal.SIGCONT)
            self._popen.terminate()
            _, alive = psutil.wait_procs(family, _ENDS_WITHIN)
            for process in alive:
                process.kill()
        self._popen.wait(PATIENCE)


def wait_gone(process: psutil.Process) -> None:
    """Wait until a process has ended."""
    wait_until(lambda: not process.is_running(), f"{process} has ended")


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[Process]:
    """Run *command* until the block ends, once it listens on *port*."""
    process = Process(command, port, log, env or {}, cwd)
    try:
        process.wait_listening()
        yield process
    finally:
        process.stop()
