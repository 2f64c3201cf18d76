"""What is done with a system and what is read off: the figures of one system in one round."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from .load import Faults, Load, OpenError, Receipt
from .processes import StartError, log_tail
from .publishers import PublishError
from .systems import Place, Running, System
from .usage import ProcessTree
from .views import BusyViews, ViewError

Figures = dict[str, float]
"""Figures by the names that :mod:`.report` knows. What does not apply to a system is not in it."""

_DRAIN_SECONDS: Final = 90.0
_VIEW_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 60.0
_CONNECT_SECONDS_A_CLIENT: Final = 0.02


@dataclass(frozen=True)
class Traffic:
    """How much is published."""

    rate: float
    """Events a second."""
    seconds: float
    """How long the steady rate is kept."""
    burst: int
    """Events in a burst."""
    bursts: int


@dataclass(frozen=True)
class BusyTraffic:
    """What there is to do while views are busy."""

    clients: int
    """Streams, all of one channel."""
    views: int
    """Clients that keep a view busy."""
    rate: float
    """Events a second."""
    seconds: float
    """How long that rate is kept."""


class BrokenError(Exception):
    """A system that did not do what every scenario needs."""


@dataclass
class Session:
    """One run of a system with its clients."""

    system: System
    running: Running
    load: Load

    @property
    def silent(self) -> bool:
        """Tell whether the system sends nothing before the first event."""
        return self.system.silent


@dataclass(frozen=True)
class Spent:
    """What passed within a window: seconds of wall clock and of processor time."""

    wall: float
    server: float
    redis: float
    load: float


class Window:
    """Reads clocks at both ends of a window."""

    def __init__(self, running: Running) -> None:
        """Begin the window."""
        self._trees: list[ProcessTree | None] = [
            running.tree,
            running.redis.tree if running.redis else None,
        ]
        self._begin = self._read()

    def _read(self) -> list[float]:
        """Read all clocks."""
        return [
            time.perf_counter(),
            *(tree.cpu_seconds() if tree else 0.0 for tree in self._trees),
            time.process_time(),
        ]

    def end(self) -> Spent:
        """End the window."""
        return Spent(*(end - begin for begin, end in zip(self._begin, self._read(), strict=True)))


@contextmanager
def session(system: System, place: Place) -> Iterator[Session]:
    """Run ``system`` and warm it up with one client that comes, gets an event and goes.

    What a process does once, at its first request (imports, the hub's start), is no client's cost.

    :raises BrokenError: if it does not start, does not answer or refuses an event; with the end of
        its log.
    """
    try:
        with system.run(place) as running:
            with _explained(system, place), closing(Load(running.port, running.publisher)) as first:
                _open(Session(system, running, first), [0])
                _everyone_hears(first, 1)
            with _explained(system, place), closing(Load(running.port, running.publisher)) as load:
                yield Session(system, running, load)
    except StartError as error:
        raise BrokenError(str(error)) from error


@contextmanager
def _explained(system: System, place: Place) -> Iterator[None]:
    """Add what the system's log says to an error, while the system has not yet logged its end."""
    try:
        yield
    except (OSError, PublishError, OpenError, ViewError) as error:
        raise BrokenError(
            f"{type(error).__name__}: {error}{log_tail(place.logs / f'{system.name}.log')}"
        ) from error


def connect(run: Session, channels: Sequence[int]) -> Figures:
    """Open a stream for each of ``channels``; see what connecting and holding them costs."""
    memory = run.running.tree.pss_bytes()
    window = Window(run.running)
    _open(run, channels)
    spent = window.end()
    _everyone_hears(run.load, len(channels))
    figures = {
        "connect_ms": spent.server / len(channels) * 1e3,
        "kib": (run.running.tree.pss_bytes() - memory) / len(channels) / 1024,
    }
    if run.running.redis:
        own = [one.socket.getsockname() for one in run.running.publisher.connections]
        for kind in ("pubsub", "normal"):
            figures[f"redis_{kind}"] = run.running.redis.connections(kind, own)
    return figures


def steady(
    run: Session, channels: Sequence[int], clients: int, rate: float, seconds: float
) -> Figures:
    """Publish ``rate`` events a second in turn to ``channels`` with ``clients`` listeners each."""
    load, events = run.load, max(1, round(rate * seconds))
    with _undisturbed(load):
        window, begin, before = Window(run.running), time.perf_counter(), load.arrived
        for event in range(events):
            while (wait := begin + event / rate - time.perf_counter()) > 0:
                load.poll(wait)
            load.publish(channels[event % len(channels)])
        load.await_arrivals(before + events * clients, _DRAIN_SECONDS)
        spent = window.end()
        late = sorted(_latencies(load, load.receipts))
    deliveries = events * clients
    redis = {"redis_cpu_us": spent.redis / deliveries * 1e6} if run.running.redis else {}
    return {
        "cpu_us": spent.server / deliveries * 1e6,
        "p50_ms": _quantile(late, 0.50) * 1e3,
        "p99_ms": _quantile(late, 0.99) * 1e3,
        "server_busy": spent.server / spent.wall * 100,
        "load_busy": spent.load / spent.wall * 100,
        **redis,
    }


def bursts(run: Session, clients: int, size: int, count: int, *, at_once: bool) -> Figures:
    """Publish ``size`` events as fast as it goes, ``count`` times, each time when all have arrived.

    ``at_once`` writes all events of a burst in one go (a pipeline), else each waits for the answer
    to the one before.
    """
    load = run.load
    rates: list[float] = []
    spent: list[Spent] = []
    for _ in range(count):
        with _undisturbed(load):
            before, first, window = load.arrived, len(load.published[0]), Window(run.running)
            if at_once:
                load.publish(0, size)
            else:
                load.publish_in_turn(0, size, _DRAIN_SECONDS)
            load.await_arrivals(before + size * clients, _DRAIN_SECONDS)
            spent.append(window.end())
            if load.receipts:
                rates.append(
                    (load.arrived - before) / (load.receipts[-1][0] - load.published[0][first])
                )
    wall = sum(one.wall for one in spent)
    name = "pipe" if at_once else "burst"
    return {
        f"{name}_per_s": median(rates or [0.0]),
        f"{name}_cpu_us": sum(one.server for one in spent) / (size * clients * count) * 1e6,
        f"{name}_server_busy": sum(one.server for one in spent) / wall * 100,
        f"{name}_load_busy": sum(one.load for one in spent) / wall * 100,
    }


def side_by_side(
    system: System, place: Place, clients: int, traffic: Traffic
) -> tuple[Figures, Faults]:
    """Measure one channel with many clients: connecting, a steady rate, bursts, publishing."""
    with session(system, place) as run:
        figures = connect(run, [0] * clients)
        figures |= steady(run, [0], clients, traffic.rate, traffic.seconds)
        for at_once in (False, True):
            figures |= bursts(run, clients, traffic.burst, traffic.bursts, at_once=at_once)
        faults = run.load.verdict()
    rate = system.publish_rate(place)
    return figures | ({} if rate is None else {"publish_per_s": rate}), faults


def at_scale(
    system: System, place: Place, clients: int, deliveries: float, seconds: float
) -> tuple[Figures, Faults]:
    """Measure one channel at the rate that makes ``deliveries`` a second to all ``clients``."""
    with session(system, place) as run:
        figures = connect(run, [0] * clients)
        figures |= steady(run, [0], clients, deliveries / clients, seconds)
        return figures, run.load.verdict()


def many_channels(
    system: System, place: Place, count: int, rate: float, seconds: float
) -> tuple[Figures, Faults]:
    """Measure ``count`` channels with a client each, ``rate`` events a second, one or more each."""
    channels = range(1, count + 1)
    with session(system, place) as run:
        figures = connect(run, channels)
        figures |= steady(run, channels, 1, rate, max(seconds, count / rate))
        return figures, run.load.verdict()


def busy_views(system: System, place: Place, traffic: BusyTraffic) -> tuple[Figures, Faults]:
    """Measure the deliveries of one channel while views use all the time that they can get.

    The server has a second core; see :meth:`.processes.Cores.with_second` for what that changes.
    """
    place = replace(place, cores=place.cores.with_second())
    with session(system, place) as run:
        connect(run, [0] * traffic.clients)
        with closing(BusyViews(run.load, run.running.port, traffic.views)) as busy:
            busy.await_answers(traffic.views, _VIEW_SECONDS)
            begin, before = time.perf_counter(), busy.answered
            figures = steady(run, [0], traffic.clients, traffic.rate, traffic.seconds)
            answered = (busy.answered - before) / (time.perf_counter() - begin)
        return {
            "busy_p50_ms": figures["p50_ms"],
            "busy_p99_ms": figures["p99_ms"],
            "busy_views_per_s": answered,
            "server_busy": figures["server_busy"],
            "load_busy": figures["load_busy"],
        }, run.load.verdict()


def _open(run: Session, channels: Sequence[int]) -> None:
    """Open the streams, counted by Redis where the server itself stays silent."""
    redis = run.running.redis
    opened = redis.subscribers if run.silent and redis else None
    run.load.connect(channels, opened, _CONNECT_SECONDS + _CONNECT_SECONDS_A_CLIENT * len(channels))


def _everyone_hears(load: Load, clients: int) -> None:
    """Publish a first event to every channel and wait until all have it: now they are warm."""
    before = load.arrived
    for channel in load.channels():
        load.publish(channel)
        load.poll(0.0)
    if not load.await_arrivals(before + clients, _DRAIN_SECONDS):
        raise TimeoutError(
            f"{load.arrived - before} of {clients} clients have the first event; {load.verdict()}"
        )


@contextmanager
def _undisturbed(load: Load) -> Iterator[None]:
    """Forget earlier receipts and keep Python's garbage collector out of a window."""
    load.receipts.clear()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _latencies(load: Load, receipts: Sequence[Receipt]) -> Iterator[float]:
    """Yield the seconds from publish to receipt of each delivery."""
    for at, (channel, first, last) in receipts:
        for published in load.published[channel][first : last + 1]:
            yield at - published


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the ordered values lie."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")
