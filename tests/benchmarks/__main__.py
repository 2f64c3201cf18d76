"""``python -m tests.benchmarks``: measures all systems side by side and writes the table.

No figure is asserted here; a delivery that was lost, doubled, out of order or garbled ends the
run with status 1.
"""

from __future__ import annotations

import datetime
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from .environments import InstallError, output_of
from .events import EVENT_BYTES
from .load import Faults
from .machine import description, raise_limits
from .plan import Plan, read_plan
from .processes import Cores
from .report import CHANNELS, SCALE, SIDE_BY_SIDE, Rounds, Section, as_text, write
from .scenarios import BrokenError, Figures, at_scale, many_channels, side_by_side
from .systems import SYSTEMS, LeftOutError, Place, System

OURS: Final = "flask-sse-2"

Scenario = Callable[[], tuple[Figures, Faults]]
Task = tuple[Rounds, str, Scenario]


@dataclass
class Measured:
    """All that a run has found."""

    side_by_side: Rounds = field(default_factory=Rounds)
    scale: Rounds = field(default_factory=Rounds)
    channels: Rounds = field(default_factory=Rounds)
    faults: list[str] = field(default_factory=list)

    def take(self, rounds: Rounds, name: str, scenario: Scenario) -> None:
        """Run one scenario and add its result.

        One broken system does not spoil what the others took minutes for.
        """
        try:
            figures, faults = scenario()
        except BrokenError as error:
            self.faults.append(f"{name}: {error}")
            _say(f"  {name}: BROKEN: {error}")
            return
        rounds.add(name, figures)
        shown = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
        _say(f"  {name}: {shown}")
        if faults:
            self.faults.append(f"{name}: {faults}")
            _say(f"  {name}: FAULTS: {faults}")


def main() -> int:
    """Run the benchmark."""
    plan = read_plan()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    place = Place(plan.work.resolve(), Cores.choose())
    place.logs.mkdir(parents=True, exist_ok=True)
    raise_limits(plan.most_clients)
    try:
        systems, left_out = _prepared(plan.needed, place)
    except InstallError as error:
        _say(f"FAILED: {error}")
        return 1
    about = _about(plan, place, systems.values(), left_out)
    # After the preparation: installing may use all cores.
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {place.cores.load})
    try:
        measured = _measure(plan, place, systems)
    finally:
        os.sched_setaffinity(0, cores)
    return _report(plan, measured, about)


def _prepared(names: Iterable[str], place: Place) -> tuple[dict[str, System], list[str]]:
    """Install the systems; return them, and what is to be said of those that cannot be had here."""
    systems: dict[str, System] = {}
    left_out: list[str] = []
    for kind in SYSTEMS:
        if kind.name not in names:
            continue
        system = kind()
        _say(f"preparing {system.name}")
        try:
            system.prepare(place)
        except LeftOutError as reason:
            left_out.append(f"{system.name}: LEFT OUT, {reason}")
            _say(left_out[-1])
        else:
            systems[system.name] = system
    return systems, left_out


def _measure(plan: Plan, place: Place, systems: dict[str, System]) -> Measured:
    """Do all rounds of all parts."""
    measured = Measured()
    for number in range(plan.rounds):
        _say(f"round {number + 1} of {plan.rounds}")
        for rounds, name, scenario in _round(plan, place, systems, measured):
            measured.take(rounds, name, scenario)
    return measured


def _round(
    plan: Plan, place: Place, systems: dict[str, System], measured: Measured
) -> Iterator[Task]:
    """Yield what a round consists of: where its figures go, under which name, what yields them."""

    def present(names: Iterable[str]) -> Iterator[System]:
        return (systems[name] for name in names if name in systems)

    for system in present(plan.systems):
        yield (
            measured.side_by_side,
            system.name,
            partial(side_by_side, system, place, plan.clients, plan.traffic),
        )
    for clients in plan.scale:
        for system in present(plan.scale_systems):
            scenario = partial(
                at_scale, system, place, clients, plan.rate * plan.clients, plan.seconds
            )
            yield measured.scale, _at_scale(system.name, clients), scenario
    for count in plan.channels:
        for system in present(plan.channel_systems):
            scenario = partial(many_channels, system, place, count, plan.channel_rate, plan.seconds)
            yield measured.channels, _on_channels(system.name, count), scenario


def _at_scale(name: str, clients: int) -> str:
    """Return what a system is called in the part with more and more clients."""
    return f"{name}, {clients:,} clients"


def _on_channels(name: str, count: int) -> str:
    """Return what a system is called in the part with many channels."""
    return f"{name}, {count:,} channels"


def _about(
    plan: Plan, place: Place, systems: Iterable[System], left_out: Iterable[str]
) -> list[str]:
    """Say when, where and of what versions."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    rounds = (
        f"{plan.rounds} rounds, the systems taking turns in each" if plan.rounds > 1 else "1 round"
    )
    return [
        f"{today}, {rounds}",
        *description(),
        str(place.cores),
        output_of(["redis-server", "--version"]).partition(" sha")[0],
        *(
            f"{each.name}: {each.title} ({', '.join(map(' '.join, each.versions.items()))})"
            for each in systems
        ),
        *left_out,
    ]


def _report(plan: Plan, measured: Measured, about: list[str]) -> int:
    """Print the tables, write them where asked to, return the exit status."""
    sections = _sections(plan, measured)
    compared = measured.side_by_side
    ratios = [
        Section(
            f"Ratios to {name}",
            "",
            compared.ratios([(other, name) for other in plan.systems], SIDE_BY_SIDE),
        )
        for name in (OURS, "nchan", "floor")
    ]
    _say("\n".join(["", *about, "", as_text([*sections, *ratios])]))
    for fault in measured.faults:
        _say(f"FAULT: {fault}")
    if plan.output and not measured.faults:
        figures = {
            part: getattr(measured, part).rounded()
            for part in ("side_by_side", "scale", "channels")
        }
        write(plan.output, sections, about, figures)
        _say(f"written: {plan.output}")
    return 1 if measured.faults else 0


def _sections(plan: Plan, measured: Measured) -> list[Section]:
    """Return the tables for the documentation."""
    compared, scale, channels = measured.side_by_side, measured.scale, measured.channels
    against = [(OURS, name) for name in plan.systems]
    growth = [
        (_at_scale(name, plan.scale[-1]), _at_scale(name, plan.scale[0]))
        for name in plan.scale_systems
        if plan.scale
    ]
    spread = [
        (_on_channels(name, plan.channels[-1]), _on_channels(name, plan.channels[0]))
        for name in plan.channel_systems
        if plan.channels
    ]
    more = (
        f"At {plan.rate * plan.clients:,.0f} deliveries a second, whatever the number of clients."
    )
    many = f"At {plan.channel_rate:,.0f} events a second over all the channels, one client each."
    ratio = "Medians of the ratios within a round."
    return [
        Section(
            f"{plan.clients:,} clients of one channel", _traffic(plan), compared.table(SIDE_BY_SIDE)
        ),
        Section("The same as ratios", ratio, compared.ratios(against, SIDE_BY_SIDE)),
        Section("More clients of one channel", more, scale.table(SCALE)),
        Section("Growth with the number of clients", ratio, scale.ratios(growth, SCALE)),
        Section("Many channels with a client each", many, channels.table(CHANNELS)),
        Section("Growth with the number of channels", ratio, channels.ratios(spread, CHANNELS)),
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


def _say(text: str) -> None:
    """Print at once, whoever reads the output."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
