"""Processes that a run starts, each bound to a core and each ended by the run that started it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil

LOOPBACK: Final = "127.0.0.1"
START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 3.0
_LOG_TAIL: Final = 2000


class StartError(Exception):
    """A process ended early or did not listen in time."""


@dataclass(frozen=True)
class Cores:
    """Which core does what."""

    server: tuple[int, ...]
    load: int
    redis: int
    second: int
    """The core that the server has beside its own while views are busy."""

    @classmethod
    def choose(cls) -> Cores:
        """Choose among the cores that this process may use.

        The server has a core of its own in any case. With two cores Redis shares the other one with
        the load generator and not with the server, where it would take turns with the one process
        that is measured. Its time is no part of the server's and is reported beside it.
        """
        cores = sorted(os.sched_getaffinity(0))
        load = cores[1 % len(cores)]
        redis = cores[2] if len(cores) > 2 else load
        return cls((cores[0],), load, redis, cores[3] if len(cores) > 3 else redis)

    def with_second(self) -> Cores:
        """Give the server a second core: the GIL, not the kernel, shall decide which thread runs.

        On a single core, the thread that delivers waits for the kernel to take the core from the
        view before it can even ask for the GIL. Where there are only two cores, Redis and the load
        generator stay on the second one. They do not starve: beside a process that never sleeps and
        may use both cores, the floor's p50 for 1,000 clients rises from 5 ms to 7 ms.
        """
        return replace(self, server=tuple(dict.fromkeys((*self.server, self.second))))

    def __str__(self) -> str:
        """Say it for the report."""
        both = " and ".join(map(str, self.with_second().server))
        return (
            f"server on core {self.server[0]}, load generator on core {self.load}, "
            f"redis-server on core {self.redis}; with busy views, server on cores {both}"
        )


@contextmanager
def pinned(cores: Iterable[int]) -> Iterator[None]:
    """Have the processes that are started meanwhile, and their descendants, run on ``cores``."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    cores: Iterable[int],
    log: Path,
    port: int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[int]:
    """Run ``command`` on ``cores`` as long as the block lasts; yield its id once ``port`` is open.

    The whole tree of processes is ended afterwards.
    """
    with log.open("wb") as output, pinned(cores):
        # A session of its own: Ctrl-C goes to the harness alone, which ends the processes in order.
        process = subprocess.Popen(
            [os.fspath(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    try:
        _await_listening(process, Path(command[0]).name, port, log)
        yield process.pid
    finally:
        end(process)


def await_condition(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until ``condition`` holds, at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.01)


def _await_listening(process: subprocess.Popen[bytes], name: str, port: int, log: Path) -> None:
    """Return once ``port`` accepts connections."""

    def listening() -> bool:
        if process.poll() is not None:
            raise StartError(f"{name} ended with status {process.returncode}{log_tail(log)}")
        try:
            socket.create_connection((LOOPBACK, port), 1.0).close()
        except OSError:
            return False
        return True

    try:
        await_condition(listening, START_SECONDS, "listening")
    except TimeoutError:
        raise StartError(
            f"{name} does not listen after {START_SECONDS:g} s{log_tail(log)}"
        ) from None


def log_tail(log: Path) -> str:
    """Return how ``log`` ends, as the rest of an error message."""
    tail = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip()
    return f"; its log ends:\n{tail}" if tail else " and wrote nothing"


def end(process: subprocess.Popen[bytes]) -> None:
    """End the tree: asked first, then killed, as 1.0 holds its worker for 30 seconds."""
    if process.poll() is not None:
        return
    tree = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in tree:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(tree, _STOP_SECONDS)
