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
_MEMORY: Final = Figure("kib", "KiB a client", 1)
_RATIO: Final = "Medians of the ratios within a round."
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


def of_channels(count: int) -> str:
    """Name the variant of a system that has so many channels."""
    return f"{count:,} channels"


def sections(plan: Plan, measured: Measured) -> list[Section]:
    """Return the tables for the documentation."""
    against = [(OURS, name) for name in plan.systems]
    return [
        Section(
            f"{plan.clients:,} clients of one channel",
            _traffic(plan),
            measured.side_by_side.table(SIDE_BY_SIDE),
        ),
        Section("The same as ratios", _RATIO, measured.side_by_side.ratios(against, SIDE_BY_SIDE)),
        Section(
            f"{plan.busy_clients:,} clients of one channel, while views are busy",
            _busy(plan),
            measured.busy.table(BUSY),
        ),
        *_scaled(plan, measured),
        Section(
            "Many channels with a client each",
            f"At {plan.channel_rate:,.0f} events a second over all the channels, one client each.",
            measured.channels.table(CHANNELS),
        ),
        Section(
            "Growth with the number of channels",
            _RATIO,
            measured.channels.ratios(
                _growth(plan.channel_systems, [*map(of_channels, plan.channels)]), CHANNELS
            ),
        ),
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
    rate = f"At {plan.rate * plan.clients:,.0f} deliveries a second, whatever the number of clients"
    return [
        Section(
            "More clients of one channel",
            f"{rate}; {of_clients(plan.large)} once only." if plan.large else f"{rate}.",
            transposed(scale.table(SCALE)),
        ),
        Section(
            "KiB a client",
            "The same, by the number of clients.",
            scale.grid(_MEMORY, plan.scale_systems, sizes, instead),
        ),
        Section(
            "Growth with the number of clients",
            _RATIO,
            transposed(scale.ratios(_growth(plan.scale_systems, sizes), SCALE)),
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
        f"Events of {EVENT_BYTES} bytes, {plan.rate:g} a second for {plan.seconds:g} s; then "
        f"{plan.bursts} bursts of {plan.burst}, each event published when the one before was "
        "answered, as ``sse.publish()`` does in a loop; then as many bursts published in one "
        "write. Processor time is that of the whole server process tree, user and system, Redis "
        "apart; memory is the growth of its proportional set size. A server that is busy for "
        "100 % is saturated, and its p50 and p99 depend on how long that lasts. nchan is "
        "published to over HTTP, the floor over a bare connection, all others through Redis."
    )


def _busy(plan: Plan) -> str:
    """Say how the part with busy views was made."""
    return (
        f"{plan.busy_rate:g} events a second for {plan.seconds:g} s, while {plan.views} clients "
        "request a view that computes for 20 ms, again and again: the views use all the time that "
        "Python's GIL gives to one process. The server may use two cores here; where there are "
        "only two, it shares the second one with Redis and the load generator."
    )
