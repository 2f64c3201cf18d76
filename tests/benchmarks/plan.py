"""What a run is to do, as the command line says it."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .scenarios import BusyTraffic, Traffic
from .systems import SYSTEMS

_ROOT: Final = Path(__file__).parents[2]
_THIS_CODE: Final = ("flask-sse-2", "flask-sse-2-gthread", "flask-sse-2-sync")
_LEFT_OUT: Final = ("floor-python", "flask-sse-2-cluster")
"""The systems that are compared only if they are named."""
_LARGE: Final = 50_000
_SMOKE_LARGE: Final = 1_000
_SMOKE: Final = {
    "clients": 100,
    "seconds": 1.5,
    "bursts": 2,
    "rounds": 1,
    "scale": (100, 300),
    "scale_systems": ("flask-sse-2",),
    "channels": (50, 200),
    "channel_rates": (200.0, 1000.0),
    "channel_systems": ("flask-sse-2", "nchan", "floor-python", "floor"),
    "busy_clients": 100,
    "output": None,
}


@dataclass(frozen=True)
class Plan:
    """All options of a run."""

    clients: int
    rate: float
    seconds: float
    burst: int
    bursts: int
    rounds: int
    systems: tuple[str, ...]
    scale: tuple[int, ...]
    scale_systems: tuple[str, ...]
    large: int
    channels: tuple[int, ...]
    channel_systems: tuple[str, ...]
    channel_rates: tuple[float, ...]
    busy_clients: int
    busy_systems: tuple[str, ...]
    busy_rate: float
    views: int
    work: Path
    output: Path | None

    @property
    def traffic(self) -> Traffic:
        """What is published in the comparison."""
        return Traffic(self.rate, self.seconds, self.burst, self.bursts)

    @property
    def busy_traffic(self) -> BusyTraffic:
        """What there is to do while views are busy."""
        return BusyTraffic(self.busy_clients, self.views, self.busy_rate, self.seconds)

    @property
    def needed(self) -> set[str]:
        """The systems that any part has to do with."""
        return {
            *self.systems,
            *(self.scale_systems if self.sizes else ()),
            *(self.channel_systems if self.channel_loads else ()),
            *(self.busy_systems if self.busy_clients else ()),
        }

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of clients in the scaling part, the large one included."""
        return (*self.scale, self.large) if self.large else self.scale

    @property
    def channel_loads(self) -> tuple[tuple[int, float], ...]:
        """Each number of channels with each number of events a second."""
        return tuple(itertools.product(self.channels, self.channel_rates))

    @property
    def most_clients(self) -> int:
        """The most streams that are open at the same time, apart from the scaling part."""
        return max(self.clients, *self.channels, self.busy_clients)


_LISTS: Final = (
    "systems",
    "scale",
    "scale_systems",
    "channels",
    "channel_rates",
    "channel_systems",
    "busy_systems",
)
"""The options with several values, which argparse gives as lists."""


def read_plan(arguments: Sequence[str] | None = None) -> Plan:
    """Read the command line. ``--smoke`` changes the defaults only."""
    smoke = argparse.ArgumentParser(add_help=False)
    smoke.add_argument(
        "--smoke",
        action="store_true",
        help="few clients, few seconds, one round, nothing written: takes a few minutes",
    )
    known, _ = smoke.parse_known_args(arguments)
    parser = _parser(smoke, _SMOKE_LARGE if known.smoke else _LARGE)
    if known.smoke:
        parser.set_defaults(**_SMOKE)
    options = vars(parser.parse_args(arguments))
    del options["smoke"]
    for name in _LISTS:
        options[name] = tuple(options[name])
    return Plan(**options)


def _parser(smoke: argparse.ArgumentParser, large: int) -> argparse.ArgumentParser:
    """Describe the options; ``large`` is what ``--large`` means without a number."""
    names = tuple(system.name for system in SYSTEMS)
    with_channels = tuple(system.name for system in SYSTEMS if system.has_channels)
    with_views = tuple(system.name for system in SYSTEMS if system.has_views)
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks",
        description=(
            "Flask-SSE beside its peers: costs, rates, delays. It takes about 35 minutes on two "
            "cores, and 4 more with --large."
        ),
        parents=[smoke],
    )
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    add = parser.add_argument
    add("--clients", type=int, default=1000, help="streams, all of one channel, in the comparison")
    add("--rate", type=float, default=10.0, help="events a second at the steady rate")
    add("--seconds", type=float, default=8.0, help="how long the steady rate is kept")
    add("--burst", type=int, default=50, help="events in a burst")
    add("--bursts", type=int, default=5, help="bursts in a round")
    add("--rounds", type=int, default=3, help="rounds, the systems taking turns in each")
    add(
        "--systems",
        nargs="*",
        choices=names,
        default=tuple(name for name in names if name not in _LEFT_OUT),
        help="what to compare",
    )
    add(
        "--scale",
        nargs="*",
        type=int,
        default=(1000, 10000),
        help="clients in the scaling part; none: no such part",
    )
    add(
        "--scale-systems",
        nargs="*",
        choices=names,
        default=(*_THIS_CODE, "nchan", "floor"),
        help="what to scale",
    )
    add(
        "--large",
        nargs="?",
        type=int,
        metavar="CLIENTS",
        const=large,
        default=0,
        help=(
            f"scale to this many clients too ({large:,} if no number is given), once, after the "
            "rounds; a process must be allowed a ninth more open files (ulimit -Hn)"
        ),
    )
    add(
        "--channels",
        nargs="*",
        type=int,
        default=(1000, 10000),
        help="channels with a client each; none: no such part",
    )
    add(
        "--channel-systems",
        nargs="*",
        choices=with_channels,
        default=("flask-sse-2", "flask-sse-2-sync", "nchan", "floor-python", "floor"),
        help="what to try many channels with",
    )
    add(
        "--channel-rates",
        nargs="*",
        type=float,
        default=(1000.0, 5000.0),
        help="events a second over all the channels",
    )
    add(
        "--busy-clients",
        type=int,
        default=1000,
        help="streams, all of one channel, while views are busy; 0: no such part",
    )
    add(
        "--busy-systems",
        nargs="*",
        choices=with_views,
        default=tuple(name for name in with_views if name not in _LEFT_OUT),
        help="what to try with busy views",
    )
    add("--busy-rate", type=float, default=5.0, help="events a second while views are busy")
    add("--views", type=int, default=4, help="clients that keep a view busy")
    add("--work", type=Path, default=_ROOT / ".bench", help="folder for environments and logs")
    add(
        "--output",
        type=Path,
        default=_ROOT / "docs" / "performance-table.rst",
        help="the table for the documentation",
    )
    add("--no-output", dest="output", action="store_const", const=None, help="write no table")
    return parser
