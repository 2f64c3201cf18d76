"""What a run has found, and which of it stands in which table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from .events import EVENT_BYTES
from .plan import Plan
from .report import (
    BUSY,
    CHANNELS,
    SCALE,
    SIDE_BY_SIDE,
    Figure,
    Rounds,
    Section,
    transposed,
    varied,
)
from .scenarios import Figures

OURS: Final = "flask-sse-2"
_MEMORY: Final = Figure("kib", "KiB per client", 1)
_RATIO: Final = "Medians of the ratios within each round."
_CHANNELS: Final = (
    f"Each event, of {EVENT_BYTES} bytes, goes to one channel with one client, one channel after "
    "the other. CPU time is the user and system time of all server processes. For nchan, it "
    "includes the HTTP request that publishes the event. For the floor in C, it includes the line "
    "that does. The others receive their events from Redis, whose CPU time is not included."
)
_TOO_FEW: Final = "too few open files"


@dataclass
class Measured:
    """All that a run has found."""

    side_by_side: Rounds = field(default_factory=Rounds)
    scale: Rounds = field(default_factory=Rounds)
    channels: Rounds = field(default_factory=Rounds)
    busy: Rounds = field(default_factory=Rounds)
    shortages: dict[int, str] = field(default_factory=dict)
    """Why the scaling part leaves out a number of clients."""
    faults: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, dict[str, list[Figures]]]:
        """Return every round's figures by part."""
        return {
            "side_by_side": self.side_by_side.rounded(),
            "scale": self.scale.rounded(),
            "channels": self.channels.rounded(),
            "busy": self.busy.rounded(),
        }


def of_clients(count: int) -> str:
    """Name the variant of a system that has so many clients."""
    return f"{count:,} clients"


def of_channels(count: int, rate: float) -> str:
    """Name the variant of a system that has so many channels and events per second."""
    return f"{count:,} channels, {rate:,.0f} events/s"


def sections(plan: Plan, measured: Measured) -> list[Section]:
    """Return the tables for the documentation."""
    against = [(OURS, name) for name in plan.systems]
    return [
        Section(
            f"{plan.clients:,} clients of one channel",
            _traffic(plan),
            measured.side_by_side.table(SIDE_BY_SIDE),
        ),
        Section(
            "The same figures as ratios",
            _RATIO,
            measured.side_by_side.ratios(against, SIDE_BY_SIDE),
        ),
        Section(
            f"{plan.busy_clients:,} clients of one channel, while views are busy",
            _busy(plan),
            measured.busy.table(BUSY),
        ),
        *_scaled(plan, measured),
        *_of_many_channels(plan, measured.channels),
    ]


def ratios(plan: Plan, measured: Measured) -> list[Section]:
    """Return the comparison once more, as ratios to each system that others are held against."""
    compared = measured.side_by_side
    return [
        Section(
            f"Ratios to {name}",
            "",
            compared.ratios([(other, name) for other in plan.systems], SIDE_BY_SIDE),
        )
        for name in (OURS, "nchan", "floor")
    ]


def _scaled(plan: Plan, measured: Measured) -> list[Section]:
    """Return the tables of the part with more and more clients."""
    scale, sizes = measured.scale, [*map(of_clients, plan.sizes)]
    instead = {of_clients(count): _TOO_FEW for count in measured.shortages}
    rate = f"{plan.rate * plan.clients:,.0f} deliveries per second, whatever the number of clients"
    once = f"{of_clients(plan.large)} were measured in one round only"
    return [
        Section(
            "More clients of one channel",
            f"{rate}. {once}." if plan.large else f"{rate}.",
            transposed(scale.table(SCALE)),
        ),
        Section(
            "KiB per client",
            "The same figures, by number of clients.",
            scale.grid(_MEMORY, plan.scale_systems, sizes, instead),
        ),
        Section(
            "Growth with the number of clients",
            _RATIO,
            transposed(scale.ratios(_growth(plan.scale_systems, sizes), SCALE)),
        ),
    ]


def _of_many_channels(plan: Plan, measured: Rounds) -> list[Section]:
    """Return the tables of the part with one client for each channel."""
    names, variants = plan.channel_systems, [of_channels(*load) for load in plan.channel_loads]
    growth = [
        pair
        for rate in plan.channel_rates
        for pair in _growth(names, [of_channels(count, rate) for count in plan.channels])
    ]
    return [
        Section(
            "Channels with one client each: CPU µs per event",
            _CHANNELS,
            measured.grid(CHANNELS[0], names, variants, {}),
        ),
        Section(
            "Channels with one client each: CPU time per event, divided by that of nchan",
            _RATIO,
            measured.ratio_grid(CHANNELS[0], names, variants, "nchan"),
        ),
        Section(
            "Channels with one client each: all figures",
            "The events per second are those of all channels together.",
            transposed(measured.table(CHANNELS)),
        ),
        Section(
            "Growth with the number of channels",
            _RATIO,
            transposed(measured.ratios(growth, CHANNELS)),
        ),
    ]


def _growth(names: Sequence[str], variants: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of each system's larger variants with its smallest."""
    return [
        (varied(name, variant), varied(name, variants[0]))
        for variant in variants[1:]
        for name in names
    ]


def _traffic(plan: Plan) -> str:
    """Say how the comparison was made."""
    return (
        f"Events of {EVENT_BYTES} bytes, first {plan.rate:g} per second for {plan.seconds:g} s. "
        f"Then {plan.bursts} bursts of {plan.burst} events, each event published after the reply "
        "to the one before, like ``sse.publish()`` in a loop. Then as many bursts in which all "
        "events are published in one write. CPU time is the user and system time of all server "
        "processes, without Redis. Memory is the growth of their proportional set size. A server "
        "that is busy for 100 % of the time is saturated, and its p50 and p99 depend on the length "
        "of the test. Events are published to nchan over HTTP, to the floor over a bare "
        "connection, and to all others through Redis."
    )


def _busy(plan: Plan) -> str:
    """Say how the part with busy views was made."""
    return (
        f"{plan.busy_rate:g} events per second for {plan.seconds:g} s, while {plan.views} clients "
        "repeatedly request a view that computes for 20 ms. The views use all the CPU time that "
        "Python's GIL allows one process. The server may use two cores here; on a machine with "
        "only two, it shares the second one with Redis and the load generator."
    )
