"""``python -m tests.benchmarks.channels``: what streams of several channels cost.

The kinds of streams take turns in each round, and the medians are printed, beside those of streams
of one channel. Nothing is asserted but that every client has got every event.
"""

from __future__ import annotations

import argparse
import select
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from flask_sse import streams

from .history import (
    PATH,
    WORKERS,
    Client,
    Probe,
    measure_delivery,
    open_streams,
    p99,
    serve_site,
)
from .machine import description, raise_limits
from .processes import Cores
from .usage import ProcessTree

_SITE: Final = "tests.apps.several:app"
_KEPT: Final = 1000
_FIRST: Final = 200
_LISTEN_SECONDS: Final = 5.0
_END_SECONDS: Final = 60.0
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Kind(NamedTuple):
    """A kind of streams; all of them have the channel ``x``."""

    name: str
    path: Callable[[int], str]
    """Returns the path of a client's stream."""
    site: str = _SITE
    root: Path = Path(__file__).parents[2]
    """The folder of the source code."""


ONE: Final = Kind("?channel=x", lambda _: PATH)
KINDS: Final = (
    ONE,
    Kind("one channel", lambda _: "/streams?channel=x"),
    Kind("the same three channels", lambda _: "/streams?channel=x&channel=y&channel=z"),
    Kind("three channels of its own", lambda n: f"/streams?channel=x&channel=y{n}&channel=z{n}"),
)


def main() -> int:
    """Measure deliveries, memory, and disconnecting."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.channels", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=1000, help="clients of each kind")
    parser.add_argument("--disconnected", type=int, default=5000, help="clients to disconnect")
    parser.add_argument("--workers", nargs="*", choices=WORKERS, default=["gevent"])
    parser.add_argument(
        "--before", type=Path, help="another checkout, whose streams of one channel are measured"
    )
    options = parser.parse_args()
    raise_limits()
    cores = Cores.choose()
    print(*description(), cores, sep="\n", flush=True)
    kinds = list(KINDS)
    if options.before:
        kinds.append(Kind("?channel=x before", ONE.path, "tests.apps.site:app", options.before))
    with tempfile.TemporaryDirectory() as name:
        for worker in options.workers:
            for kept in (_KEPT, None):
                _report_costs(worker, kept, kinds, options.rounds, options.clients, cores, name)
            _report_disconnect(worker, options.disconnected, cores, Path(name))
    return 0


def _report_costs(
    worker: str,
    kept: int | None,
    kinds: Sequence[Kind],
    rounds: int,
    number: int,
    cores: Cores,
    name: str,
) -> None:
    times: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    sizes: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            site = serve_site(worker, kept, cores, Path(name), kind.site, kind.root)
            with site as (server, app, port, tree):
                # First, since memory that has been used before is not taken again.
                sizes[kind.name].append(_size(port, tree, number, kind))
                cost = measure_delivery(server, app, port, tree, number, path=kind.path)
                times[kind.name].append(cost)
    history = "without history" if kept is None else "with history"
    for kind in kinds:
        cost, first = (statistics.median(times[one.name]) for one in (kind, ONE))
        # Each round's own ratio: what else this machine does changes between the rounds.
        pairs = zip(times[kind.name], times[ONE.name], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        print(
            f"{worker}, {history}, {kind.name}: {cost:.2f} us a delivery, x {ratio:.2f} "
            f"(of the medians x {cost / first:.2f}), "
            f"{statistics.median(sizes[kind.name]):.1f} KiB a client",
            flush=True,
        )


def _size(port: int, tree: ProcessTree, number: int, kind: Kind) -> float:
    """Return the memory that the site takes for a client, in KiB."""
    with ExitStack() as stack:
        # What is imported or made with the first streams does not count.
        open_streams(stack, port, _FIRST, kind.path)
        before = tree.pss_bytes()
        open_streams(stack, port, number, lambda index: kind.path(_FIRST + index))
        return (tree.pss_bytes() - before) / number / 1024


def _report_disconnect(worker: str, number: int, cores: Cores, folder: Path) -> None:
    with serve_site(worker, _KEPT, cores, folder, _SITE) as (_, app, port, _), ExitStack() as stack:
        path = "/streams?channel=x&channel=y{0}&channel=z{0}&client=user{0}".format
        clients = open_streams(stack, port, number, path)
        with Probe(app, port) as probe:
            time.sleep(_LISTEN_SECONDS)
            before = probe.delays[:]
            with app.app_context():
                begin = time.perf_counter()
                streams.disconnect(channel="x")
            _await_ends(clients)
            seconds = time.perf_counter() - begin
            during = probe.delays[len(before) :]
    print(
        f"{worker}, {number} clients disconnected by one call: all streams have ended after "
        f"{seconds:.2f} s; p99 of another channel {p99(before) * 1e3:.1f} ms before, "
        f"{p99(during) * 1e3:.1f} ms meanwhile, x {p99(during) / p99(before):.2f}",
        flush=True,
    )


def _await_ends(clients: Sequence[Client]) -> None:
    """Wait until all streams have ended properly.

    Until then, nothing is read, since that would delay the probe, which runs in this process.
    """
    with select.epoll() as epoll:
        for client in clients:
            epoll.register(client.socket, select.EPOLLRDHUP | select.EPOLLONESHOT)
        left = len(clients)
        deadline = time.monotonic() + _END_SECONDS
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{left} of {len(clients)} streams have not ended")
            time.sleep(0.005)
            left -= len(epoll.poll(0, left))
    for client in clients:
        client.receive()
        if not client.tail.endswith(_LAST_CHUNK):
            raise ConnectionError(f"a stream has ended after {client.tail!r}")


if __name__ == "__main__":
    sys.exit(main())
