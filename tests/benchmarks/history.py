"""``python -m tests.benchmarks.history``: what history costs, beside the same without it.

The two take turns in each round, and the medians are printed. Nothing is asserted but that every
client has got every event.
"""

from __future__ import annotations

import argparse
import itertools
import select
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

from flask import Flask

from flask_sse import history, sse

from .machine import description, raise_limits
from .processes import LOOPBACK, Cores, await_condition, free_port, pinned, running
from .redis_server import RedisServer, redis_server
from .usage import ProcessTree

_ROOT: Final = Path(__file__).parents[2]
_KEPT: Final = 1000
_MISSED: Final = 100
_AT_ONCE: Final = 100
PATH: Final = "/stream?channel=x"
_DATA: Final = {"user": "alice", "text": "x" * 100}
OPENING: Final = b"\n:\n"
"""The comment with which each stream begins."""
WORKERS: Final = {
    "sync": ("--workers", "1"),
    "gthread": ("--threads", "4"),
    "gevent": ("--worker-class", "gevent"),
}


class Cost(NamedTuple):
    """What one publish takes, in microseconds."""

    round_trip: float
    script: float
    """Of Redis, as it says of the command itself."""
    server: float
    """Of Redis, with its share of the network."""


def main() -> int:
    """Measure publishing, delivery and a storm of clients that come back."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.history", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=1000, help="clients that are connected")
    parser.add_argument("--storm", type=int, default=2000, help="clients that come back at once")
    parser.add_argument("--workers", nargs="*", choices=WORKERS, default=[*WORKERS])
    options = parser.parse_args()
    raise_limits()
    cores = Cores.choose()
    print(*description(), cores, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _report_publishing(options.rounds, cores, folder)
        for worker in options.workers:
            _report_delivery(worker, options.rounds, options.clients, cores, folder)
            _report_storm(worker, options.rounds, options.storm, cores, folder)
    return 0


def _report_publishing(rounds: int, cores: Cores, folder: Path) -> None:
    plain: list[Cost] = []
    logged: list[Cost] = []
    with redis_server(cores.redis, folder) as server, pinned(cores.server):
        for _ in range(rounds):
            plain.append(_publishing(server, None))
            logged.append(_publishing(server, _KEPT))
    for name, index in (("round trip", 0), ("Redis, the command", 1), ("Redis, all", 2)):
        without, with_ = (
            statistics.median(costs[index] for costs in both) for both in (plain, logged)
        )
        print(
            f"publish, {name}: {without:.1f} us without history, {with_:.1f} us with, "
            f"x {with_ / without:.2f}",
            flush=True,
        )


def _publishing(server: RedisServer, kept: int | None, events: int = 3000) -> Cost:
    app = Flask("benchmark")
    app.config.update(REDIS_URL=server.url, SSE_HISTORY=kept)
    with app.app_context():
        for _ in range(events // 4):
            sse.publish(_DATA, channel="x")
        server.client.config_resetstat()
        cpu = server.tree.cpu_seconds()
        begin = time.perf_counter()
        for _ in range(events):
            sse.publish(_DATA, channel="x")
        seconds = time.perf_counter() - begin
        cpu = server.tree.cpu_seconds() - cpu
    commands = server.client.info("commandstats")
    command = commands["cmdstat_publish" if kept is None else "cmdstat_evalsha"]
    return Cost(seconds / events * 1e6, float(command["usec_per_call"]), cpu / events * 1e6)


def _report_delivery(worker: str, rounds: int, number: int, cores: Cores, folder: Path) -> None:
    figures: dict[int | None, list[float]] = {None: [], _KEPT: []}
    for _ in range(rounds):
        for kept, costs in figures.items():
            with serve_site(worker, kept, cores, folder) as (server, app, port, tree):
                costs.append(measure_delivery(server, app, port, tree, number))
    without, with_ = (statistics.median(costs) for costs in figures.values())
    print(
        f"{worker}, a delivery: {without:.2f} us without history, {with_:.2f} us with, "
        f"x {with_ / without:.2f}",
        flush=True,
    )


def measure_delivery(
    server: RedisServer,
    app: Flask,
    port: int,
    tree: ProcessTree,
    number: int,
    events: int = 100,
    path: Callable[[int], str] = lambda _: PATH,
) -> float:
    """Return the processor time of the site for one event and client, in microseconds.

    :param path: Returns the path of each client's stream.
    """
    with ExitStack() as stack, app.app_context():
        clients = open_streams(stack, port, number, path)
        sse.publish({"number": -1, **_DATA}, channel="x")
        gather(clients, b'"number": -1,')
        before = tree.cpu_seconds()
        for event in range(events):
            sse.publish({"number": event, **_DATA}, channel="x")
            gather(clients, b'"number": %d,' % event)
        return (tree.cpu_seconds() - before) / events / number * 1e6


def _report_storm(worker: str, rounds: int, number: int, cores: Cores, folder: Path) -> None:
    seconds: dict[int | None, list[float]] = {None: [], _KEPT: []}
    delays: dict[int | None, list[float]] = {None: [], _KEPT: []}
    for _ in range(rounds):
        for kept, times in seconds.items():
            with serve_site(worker, kept, cores, folder) as (_, app, port, _):
                cursors = [""] * number if kept is None else _positions(app, number)
                with Probe(app, port) as probe:
                    times.append(_storm(port, cursors))
                delays[kept] += probe.delays
    without, with_ = (statistics.median(some) for some in seconds.values())
    print(
        f"{worker}, {number} clients come at once: {without:.2f} s until all streams have begun, "
        f"with history {with_:.2f} s until all have got what they had missed",
        flush=True,
    )
    without, with_ = (p99(some) * 1e3 for some in delays.values())
    print(
        f"{worker}, p99 of another channel meanwhile: {without:.0f} ms without history, "
        f"{with_:.0f} ms with, x {with_ / without:.2f}",
        flush=True,
    )


def _positions(app: Flask, number: int) -> list[str]:
    """Publish, and return a position for each client."""
    positions: list[str] = []
    with app.app_context():
        for event in range(_MISSED):
            positions.append(history.position("x"))
            sse.publish({"number": event, **_DATA}, channel="x")
    return [positions[index % _MISSED] for index in range(number)]


def _storm(port: int, cursors: Sequence[str]) -> float:
    wanted = b'"number": %d,' % (_MISSED - 1) if cursors[0] else OPENING
    with ExitStack() as stack:
        begin = time.perf_counter()
        gather(_connect(stack, port, cursors), wanted)
        return time.perf_counter() - begin


def p99(delays: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return sorted(delays)[len(delays) * 99 // 100]


class Probe:
    """A client of another channel, which is sent one event after the other."""

    def __init__(self, app: Flask, port: int) -> None:
        self.delays: list[float] = []
        self._app = app
        self._client = Client(port, "", "/stream?channel=other")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        gather([self._client], OPENING)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._client.socket.close()

    def _run(self) -> None:
        with self._app.app_context():
            for number in itertools.count():
                if self._stopped.is_set():
                    break
                begin = time.perf_counter()
                sse.publish({"number": number}, channel="other")
                gather([self._client], b'"number": %d}' % number)
                self.delays.append(time.perf_counter() - begin)


class Client:
    """A connection whose last bytes are kept."""

    def __init__(self, port: int, cursor: str, path: str) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), 10)
        head = f"Last-Event-ID: {cursor}\r\n" if cursor else ""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: benchmark\r\n{head}\r\n".encode())
        self.socket.setblocking(False)
        self.tail = b""

    def receive(self) -> None:
        """Read what has come."""
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise ConnectionError(f"a stream has ended after {self.tail!r}")
        self.tail = (self.tail + piece)[-2000:]


def open_streams(
    stack: ExitStack, port: int, number: int, path: Callable[[int], str]
) -> list[Client]:
    """Open streams, some at a time, so that none is refused.

    :param path: Returns the path of each client's stream.
    """
    clients: list[Client] = []
    for begin in range(0, number, _AT_ONCE):
        some = range(begin, min(begin + _AT_ONCE, number))
        added = [Client(port, "", path(index)) for index in some]
        for client in added:
            stack.callback(client.socket.close)
        gather(added, OPENING)
        clients += added
    return clients


def _connect(stack: ExitStack, port: int, cursors: Sequence[str]) -> list[Client]:
    clients = [Client(port, cursor, PATH) for cursor in cursors]
    for client in clients:
        stack.callback(client.socket.close)
    return clients


def gather(clients: Sequence[Client], wanted: bytes, seconds: float = 30) -> None:
    """Read until each client has received something."""
    deadline = time.monotonic() + seconds
    with select.epoll() as epoll:
        waiting = {client.socket.fileno(): client for client in clients}
        for descriptor in waiting:
            epoll.register(descriptor, select.EPOLLIN)
        while waiting:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(waiting)} of {len(clients)} clients still wait")
            for descriptor, _ in epoll.poll(1.0):
                client = waiting[descriptor]
                client.receive()
                if wanted in client.tail:
                    epoll.unregister(descriptor)
                    del waiting[descriptor]


@contextmanager
def serve_site(
    worker: str,
    kept: int | None,
    cores: Cores,
    folder: Path,
    site: str = "tests.apps.site:app",
    root: Path = _ROOT,
) -> Iterator[tuple[RedisServer, Flask, int, ProcessTree]]:
    """Run a site, as its only user on a core of its own.

    :param root: The folder of the source code, which may have been checked out elsewhere.
    """
    port = free_port()
    settings = {} if kept is None else {"FLASK_SSE_HISTORY": str(kept)}
    command = [
        *(sys.executable, "-m", "gunicorn", *WORKERS[worker], "--backlog", "4096"),
        *("--worker-connections", "4096", "--bind", f"{LOOPBACK}:{port}", site),
    ]
    with redis_server(cores.redis, folder) as server, pinned([cores.load]):
        env = {"FLASK_REDIS_URL": server.url, **settings}
        app = Flask("benchmark")
        app.config.update(REDIS_URL=server.url, SSE_HISTORY=kept)
        with running(
            command, cores=cores.server, log=folder / "site.log", port=port, env=env, cwd=root
        ) as pid:
            tree = ProcessTree(pid)
            await_condition(lambda: len(tree.processes()) > 1, 10, "a worker")
            yield server, app, port, tree


if __name__ == "__main__":
    sys.exit(main())
