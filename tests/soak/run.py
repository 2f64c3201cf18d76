"""A whole soak: the servers, the load, the faults, and the report."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from flask import Flask

from flask_sse import sse
from tests.soak.checker import CONNECTED, Checker, Finding, Kind, Record
from tests.soak.crowd import Crowd, Member
from tests.soak.events import FOREIGN, KEPT, Number
from tests.soak.faults import Saboteur, SiteSaboteur
from tests.soak.publishing import ForeignPublisher, Publisher
from tests.soak.systems import OneCluster, OneRedis, System
from tests.soak.truth import Place, Truth
from tests.support import servers
from tests.support.servers import Site
from tests.support.waiting import wait_until

SETTINGS: Final = {
    "SSE_HISTORY": KEPT,
    "SSE_RETRY": 100,
    "SSE_KEEPALIVE": 1,
    "SSE_MAX_PENDING": 50_000,
}
_SETTLE_WITHIN: Final = 120
_MOST_SHOWN: Final = 20


class Plan(NamedTuple):
    """How to soak."""

    seconds: float
    clients: int
    seed: int
    pause: float = 4
    """The longest time between two faults of Redis, and of the sites, in seconds."""
    is_on_cluster: bool = False
    """Whether there is a Redis Cluster instead of one Redis."""


class Report(NamedTuple):
    """What has come of it."""

    plan: Plan
    published: int
    unknown: int
    foreign: int
    logged: int
    lost: int
    """Events whose `publish` has returned, and which the data of Redis do not have at last."""
    lost_unseen: int
    """Those of them that no client had received."""
    counts: Counter[str]
    """What the clients have received, by type."""
    faults: Counter[str]
    journal: Sequence[str]
    findings: Sequence[Finding]
    others: Sequence[str]
    """What is wrong, but not with the record of a client."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings and not self.others

    def lines(self) -> list[str]:
        """Return the report, for people."""
        plan, counts = self.plan, self.counts
        kinds = Counter(finding.kind for finding in self.findings)
        return [
            f"{plan.seconds:g} s of faults, {plan.clients} clients, seed {plan.seed}",
            "",
            f"events published     {self.published:,}, and {self.unknown:,} without an answer",
            f"  without history    {self.foreign:,}, or no events at all",
            f"events in the logs   {self.logged:,}",
            f"  lost by Redis      {self.lost:,}, of which {self.lost_unseen:,} had reached nobody",
            f"events delivered     {counts['message']:,}",
            f"  without history    {counts[FOREIGN]:,}",
            f"connections          {counts[CONNECTED]:,}",
            f"streams resumed      {counts['resumed']:,}",
            f"resets               {counts['sse.reset']:,}",
            "",
            *(f"{name:34} {number:5}" for name, number in sorted(self.faults.items())),
            "",
            *(f"{kind:42} {kinds[kind]}" for kind in Kind),
            f"{'other errors':42} {len(self.others)}",
            *(f"{finding.kind}: {finding.text}" for finding in self.findings[:_MOST_SHOWN]),
            *self.others[:_MOST_SHOWN],
            *(() if self.is_sound else ("", "what was done when:", *self.journal)),
            "",
            "PASSED" if self.is_sound else "FAILED",
        ]


def soak(plan: Plan, folder: Path) -> Report:
    """Do everything that *plan* says."""
    truth = Truth()
    with ExitStack() as stack:
        kind = OneCluster if plan.is_on_cluster else OneRedis
        system: System = kind(_rng(plan, "redis"), plan.pause, folder, truth, stack)
        by_redis = system.saboteur
        settings = {"REDIS_URL": system.url, **SETTINGS}
        sites = [
            stack.enter_context(
                servers.gunicorn(folder, *options, "--workers", "2", settings=settings)
            )
            for options in (servers.WORKERS["gevent"], servers.WORKERS["sync"])
        ]
        crowd = stack.enter_context(Crowd(_members(plan, sites)))
        wait_until(crowd.have_opened, "all streams begin", 30)
        by_sites = SiteSaboteur(_rng(plan, "sites"), plan.pause, sites, crowd, plan.clients)
        app = _app(settings)
        publishers = [stack.enter_context(Publisher(app, channel)) for channel in KEPT]
        foreign = stack.enter_context(ForeignPublisher(system.publish, _rng(plan, "foreign")))
        with by_redis, by_sites:
            _wait(plan.seconds, (by_redis, by_sites))
        foreign.stop()
        ends: dict[str, str] = {}
        for publisher in publishers:
            publisher.stop()
            ends[publisher.channel] = publisher.finish()
        _settle(crowd, ends)
        # The records of clients that are stuck are checked, too.
        records = crowd.records()
        system.read(truth)
        logs = [line for site in sites for line in _errors(site)]
    workers = (*publishers, foreign, by_redis, by_sites)
    errors = [worker.error for worker in workers]
    others = [*logs, *(repr(error) for error in (*errors, crowd.error) if error is not None)]
    journal = _journal(by_redis, by_sites)
    places = {channel: Place.parse(end) for channel, end in ends.items()}
    acknowledged = [number for publisher in publishers for number in publisher.acknowledged]
    unknown = sum(len(publisher.unknown) for publisher in publishers)
    others += truth.faults(acknowledged)
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    for record in records:
        checker = Checker(truth, record, places[record.channel])
        findings += checker.findings()
        counts += checker.counts
    lost, lost_unseen = _lost(truth, places, records, acknowledged)
    return Report(
        plan,
        len(acknowledged),
        unknown,
        foreign.published,
        len(truth.entries),
        lost,
        lost_unseen,
        counts,
        by_redis.counts + by_sites.counts,
        journal,
        findings,
        others,
    )


def _rng(plan: Plan, name: str) -> random.Random:
    return random.Random(f"{plan.seed} {name}")


def _members(plan: Plan, sites: Sequence[Site]) -> list[Member]:
    """Return clients of each channel with each site, of which some have little room."""
    channels = [*KEPT]
    return [
        Member(
            sites[index % len(sites)].port,
            channels[index // len(sites) % len(channels)],
            is_small=index % 5 == 0,
        )
        for index in range(plan.clients)
    ]


def _app(settings: Mapping[str, object]) -> Flask:
    app = Flask("soak")
    app.config.update(settings)
    app.register_blueprint(sse, url_prefix="/stream")
    return app


def _wait(seconds: float, saboteurs: Sequence[Saboteur]) -> None:
    """Wait until the time is over, and tell now and then that all goes on."""
    begin = time.monotonic()
    told = begin
    while (now := time.monotonic()) - begin < seconds:
        if any(saboteur.error is not None for saboteur in saboteurs):
            return
        if now - told > 60:
            told = now
            done = sum(saboteur.counts.total() for saboteur in saboteurs)
            print(f"after {now - begin:.0f} s: {done} faults", flush=True)
        time.sleep(0.1)


def _settle(crowd: Crowd, ends: dict[str, str]) -> None:
    """Wait until all clients are at the end of the logs; the checker finds those that are not."""
    crowd.wake()
    deadline = time.monotonic() + _SETTLE_WITHIN
    while not crowd.are_at(ends) and time.monotonic() < deadline:
        time.sleep(0.1)


def _errors(site: Site) -> list[str]:
    """Return what a server has logged that no fault of others explains."""
    signs = ("Traceback", "the event hub has failed", "SSE_MAX_PENDING")
    return [line for line in site.log().splitlines() if any(sign in line for sign in signs)]


def _journal(*saboteurs: Saboteur) -> list[str]:
    """Return what was done when."""
    steps = sorted(step for saboteur in saboteurs for step in saboteur.journal)
    return [f"{moment - steps[0][0]:7.2f} s  {name}" for moment, name in steps]


def _lost(
    truth: Truth,
    ends: dict[str, Place],
    records: Sequence[Record],
    acknowledged: Sequence[Number],
) -> tuple[int, int]:
    """Count the events that are in no log at last, and those of them that nobody has received."""
    kept = {
        truth.entries[place].number
        for end in ends.values()
        for place in truth.back_from(end)
        if place in truth.entries
    }
    lost = {*acknowledged} - kept
    received: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        received[record.channel] |= {e.id for e in record.events if e.type == "message"}
    seen = {
        truth.entries[place].number
        for ids in received.values()
        for place in map(Place.parse, ids)
        if place in truth.entries
    }
    return len(lost), len(lost - seen)
