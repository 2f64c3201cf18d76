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
from functools import partial
from typing import Final

from .environments import InstallError, output_of
from .load import Faults
from .machine import description, raise_limits, shortage
from .plan import Plan, read_plan
from .processes import Cores
from .report import Rounds, as_text, varied, write
from .results import Measured, of_channels, of_clients, ratios, sections
from .scenarios import BrokenError, Figures, at_scale, busy_views, many_channels, side_by_side
from .systems import SYSTEMS, LeftOutError, Place, System

Scenario = Callable[[], tuple[Figures, Faults]]
Task = tuple[Rounds, str, Scenario]
_LEAST_EVENTS: Final = 4
"""The fewest events of the scaling part, which publishes the less often the more clients."""


def main() -> int:
    """Run the benchmark."""
    plan = read_plan()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    place = Place(plan.work.resolve(), Cores.choose())
    place.logs.mkdir(parents=True, exist_ok=True)
    raise_limits()
    if reason := shortage(plan.most_clients):
        _say(f"FAILED: {reason}")
        return 1
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
    about += (f"LEFT OUT: {reason}" for reason in measured.shortages.values())
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
    for count in plan.sizes:
        if reason := shortage(count):
            measured.shortages[count] = reason
            _say(f"LEFT OUT: {reason}")
    for number in range(plan.rounds):
        _say(f"round {number + 1} of {plan.rounds}")
        for task in _round(plan, place, systems, measured):
            _take(measured, *task)
    if plan.large and plan.large not in measured.shortages:
        _say(f"{plan.large:,} clients")
        for task in _scaling(plan, place, systems, measured, plan.large):
            _take(measured, *task)
    return measured


def _take(measured: Measured, rounds: Rounds, name: str, scenario: Scenario) -> None:
    """Run one scenario and add its result.

    One broken system does not spoil what the others took minutes for.
    """
    try:
        figures, faults = scenario()
    except BrokenError as error:
        measured.faults.append(f"{name}: {error}")
        _say(f"  {name}: BROKEN: {error}")
        return
    rounds.add(name, figures)
    shown = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
    _say(f"  {name}: {shown}")
    if faults:
        measured.faults.append(f"{name}: {faults}")
        _say(f"  {name}: FAULTS: {faults}")


def _round(
    plan: Plan, place: Place, systems: dict[str, System], measured: Measured
) -> Iterator[Task]:
    """Yield what a round consists of: where its figures go, under which name, what yields them."""
    for system in _present(plan.systems, systems):
        yield (
            measured.side_by_side,
            system.name,
            partial(side_by_side, system, place, plan.clients, plan.traffic),
        )
    for system in _present(plan.busy_systems, systems) if plan.busy_clients else ():
        yield (
            measured.busy,
            system.name,
            partial(busy_views, system, place, plan.busy_traffic),
        )
    for clients in plan.scale:
        if clients not in measured.shortages:
            yield from _scaling(plan, place, systems, measured, clients)
    for count, rate in plan.channel_loads:
        for system in _present(plan.channel_systems, systems):
            scenario = partial(many_channels, system, place, count, rate, plan.seconds)
            yield measured.channels, varied(system.name, of_channels(count, rate)), scenario


def _scaling(
    plan: Plan, place: Place, systems: dict[str, System], measured: Measured, clients: int
) -> Iterator[Task]:
    """Yield what the scaling part does with so many clients."""
    deliveries = plan.rate * plan.clients
    seconds = max(plan.seconds, _LEAST_EVENTS * clients / deliveries)
    for system in _present(plan.scale_systems, systems):
        scenario = partial(at_scale, system, place, clients, deliveries, seconds)
        yield measured.scale, varied(system.name, of_clients(clients)), scenario


def _present(names: Iterable[str], systems: dict[str, System]) -> Iterator[System]:
    """Yield those of the named systems that this machine has."""
    return (systems[name] for name in names if name in systems)


def _about(
    plan: Plan, place: Place, systems: Iterable[System], left_out: Iterable[str]
) -> list[str]:
    """Say when, where and of what versions."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    rounds = (
        f"{plan.rounds} rounds, in which the systems took turns" if plan.rounds > 1 else "1 round"
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
    tables = sections(plan, measured)
    _say("\n".join(["", *about, "", as_text([*tables, *ratios(plan, measured)])]))
    for fault in measured.faults:
        _say(f"FAULT: {fault}")
    if plan.output and not measured.faults:
        write(plan.output, tables, about, measured.figures())
        _say(f"written: {plan.output}")
    return 1 if measured.faults else 0


def _say(text: str) -> None:
    """Print at once, even if the output is a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
