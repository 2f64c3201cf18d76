"""``python -m tests.benchmarks.signals``: what signals cost for each delivery.

Sites without receivers, and with a receiver for every signal, take turns in each round, and the
medians of the processor time are printed. Nothing is asserted but that every client has got
every event.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

from .history import WORKERS, measure_delivery, serve_site
from .machine import description, raise_limits
from .processes import Cores

_SITES: Final = {
    "without receivers": "tests.apps.site:app",
    "with receivers": "tests.apps.signalled:app",
}


def main() -> int:
    """Measure deliveries to clients that stay."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.signals", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 100, 1000])
    parser.add_argument("--workers", nargs="*", choices=WORKERS, default=[*WORKERS])
    options = parser.parse_args()
    raise_limits()
    cores = Cores.choose()
    print(*description(), cores, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for worker in options.workers:
            for number in options.clients:
                _report(worker, options.rounds, number, cores, Path(name))
    return 0


def _report(worker: str, rounds: int, number: int, cores: Cores, folder: Path) -> None:
    figures: dict[str, list[float]] = {name: [] for name in _SITES}
    for _ in range(rounds):
        for name, costs in figures.items():
            with serve_site(worker, None, cores, folder, _SITES[name]) as (server, app, port, tree):
                costs.append(measure_delivery(server, app, port, tree, number))
    without, with_ = (statistics.median(costs) for costs in figures.values())
    print(
        f"{worker}, {number} clients, a delivery: {without:.2f} us without receivers, "
        f"{with_:.2f} us with, x {with_ / without:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
