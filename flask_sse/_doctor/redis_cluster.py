"""Checks of the Redis Cluster that an application is configured to use.

They wait for the nodes, each with a timeout. All nodes are asked at the same time, in threads.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import redis

from flask_sse._doctor.cluster_events import Events
from flask_sse._doctor.cluster_facts import (
    Answer,
    Row,
    about_replica,
    by_node,
    explain_lost,
    explain_refusal,
    parse_answer,
    parse_rows,
    uncovered,
)
from flask_sse._doctor.control_channel import check_control
from flask_sse._doctor.examined import App
from flask_sse._doctor.finding import Finding, Level, attempt, fail, ok, unforeseen, warn
from flask_sse._doctor.primaries import Primaries
from flask_sse._doctor.redis_node import (
    ServerCommands,
    answered,
    check_memory,
    check_version,
    explain,
    find_room,
    judge_room,
    ping,
)
from flask_sse._event.channel_name import CONTROL
from flask_sse._redis.cluster.errors import is_no_cluster
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.topology import merge
from flask_sse._redis.pubsub import LOST
from flask_sse._redis.slots import SLOTS
from flask_sse._redis.url import Address

_OLDEST: Final = 7
_REFUSALS: Final = (redis.ResponseError, redis.AuthenticationError)
_FULL_COVERAGE: Final = "cluster-require-full-coverage"
_WHEN_DOWN: Final = "cluster-allow-pubsubshard-when-down"


class Cluster:
    """A Redis Cluster.

    :param nodes: Where it is.
    :param patience: Seconds to wait for each answer.
    """

    def __init__(self, nodes: ClusterNodes, patience: float) -> None:
        self._nodes = nodes
        self._primaries = Primaries(nodes, patience)
        self._events = Events(self._primaries)

    @property
    def can_publish(self) -> bool:
        """Whether an event has been published to the channel of the checks."""
        return self._events.can_publish

    def examine(self, app: App) -> Iterator[Finding]:
        """Yield the findings about a cluster; stop if it can't be used."""
        primaries = self._primaries
        answers: list[Answer] = []
        yield from attempt("start nodes", partial(self._check_start_nodes, answers))
        if not answers:
            return
        primaries.slots = merge([answer.view for answer in answers])
        yield from attempt("redis", partial(self._check_nodes, answers))
        if not primaries.present:
            yield from self._check_free_slots()
            return
        for finding in primaries.on_each("redis version", _check_version):
            yield finding
            if finding.level is Level.FAIL:
                return
        yield from attempt("slots", self._check_slots)
        has_more = app.has_history and len(primaries.slots.primaries) > 1
        settings = _check_settings_with_history if has_more else _check_settings
        yield from primaries.on_each("cluster settings", settings)
        yield from attempt("redis connections", partial(self._check_room, app))
        yield from attempt("publish", partial(self._events.check_round_trips, app))
        if self.can_publish:
            yield from attempt("control channel", self._check_control)
        if app.settings.presence:
            yield from attempt("presence", partial(self._events.check_presence, app))
        if app.has_history:
            yield from attempt("history", partial(self._events.check_history, app))
            yield from primaries.on_each("redis memory", lambda client, _: check_memory(client))
        yield from attempt("publishers", partial(self._events.check_publishers, app))

    def count_listeners(self, channel: bytes) -> int | None:
        """Return how many processes are subscribed; `None` if the node does not say."""
        owner = self._primaries.owner(channel)
        if owner is None:
            return None
        client = self._primaries.at(owner)
        try:
            _, number = client.execute_command("PUBSUB", "SHARDNUMSUB", channel)
        except LOST:
            return None
        return int(number)

    def forget(self, app: App) -> None:
        """Delete what Redis keeps of the events to the channel of the checks."""
        self._events.forget(app)

    def close(self) -> None:
        """Close the connections."""
        self._primaries.close()

    def _check_start_nodes(self, answers: list[Answer]) -> Iterator[Finding]:
        problems: list[tuple[Address, Finding]] = []
        for address, answer in self._primaries.ask(self._nodes.start, _ask_slots):
            if isinstance(answer, Answer):
                answers.append(answer)
            else:
                problems.append((address, self._explain_start(answer)))
        for problem in by_node(problems):
            if answers:
                remedy = f"{problem.remedy}; otherwise, remove it from the URL"
                yield warn("start nodes", problem.found, remedy)
            else:
                yield problem
        if answers:
            yield ok("start nodes", f"{len(answers)} of {len(self._nodes.start)} answer")

    def _explain_start(self, error: Exception) -> Finding:
        if is_no_cluster(error):
            return fail(
                "cluster",
                "it is not part of a cluster",
                "begin the URL with redis:// instead of redis+cluster:// (rediss:// for TLS)",
            )
        if isinstance(error, redis.ResponseError):
            return explain_refusal("start nodes", error, self._nodes.options.get("username"))
        return explain(error) if isinstance(error, LOST) else unforeseen("start nodes", error)

    def _check_nodes(self, answers: Sequence[Answer]) -> Iterator[Finding]:
        """Check that each primary and each replica answers at its address."""
        primaries = self._primaries.slots.primaries
        problems: list[tuple[Address, Exception]] = []
        replicas = frozenset[Address]().union(*(answer.replicas for answer in answers)) - primaries
        nodes = [*sorted(primaries), *sorted(replicas)]
        for address, answer in self._primaries.ask(nodes, lambda client, _: ping(client)):
            if isinstance(answer, Exception):
                problems.append((address, answer))
            elif address in primaries:
                self._primaries.present.append(address)
                yield from by_node([(address, answered(answer))])
        said = self._find_rows({answer.view.node for answer in answers}) if problems else {}
        ids = {address: name for answer in answers for address, name in answer.ids.items()}
        for address, error in problems:
            if isinstance(error, _REFUSALS) or not isinstance(error, LOST):
                [finding] = by_node([(address, self._explain_start(error))])
            else:
                finding = explain_lost(address, error, ids[address], said)
            yield finding if address in primaries else about_replica(finding)

    def _find_rows(self, others: set[Address]) -> dict[Address, list[Row]]:
        """Return what all nodes that answer say about the nodes."""
        asked = sorted(others | {*self._primaries.present})
        return {
            address: rows
            for address, rows in self._primaries.ask(asked, _ask_rows)
            if not isinstance(rows, Exception)
        }

    def _check_free_slots(self) -> Iterator[Finding]:
        """Check that each slot has a primary."""
        free = uncovered(self._primaries.slots)
        if free:
            yield fail(
                "slots",
                f"no primary has the slots {', '.join(free)}: nothing is published on their "
                f"channels",
                f"give them to a primary, for example with redis-cli --cluster fix "
                f"{self._nodes.start[0]}",
            )

    def _check_slots(self) -> Iterator[Finding]:
        free = [*self._check_free_slots()]
        yield from free
        states = self._primaries.ask(self._primaries.present, _ask_state)
        down = [str(address) for address, state in states if state == "fail"]
        if down:
            yield fail(
                "slots",
                f"the cluster is down, according to {', '.join(down)}: there, nothing is published "
                f"with history on any channel",
                f"start the lost primaries, or make replicas take their places; with "
                f"{_FULL_COVERAGE} no, only the channels of a lost primary stop",
            )
        elif not free and len(self._primaries.present) == len(self._primaries.slots.primaries):
            yield ok("slots", f"each of the {SLOTS} has a primary that answers")

    def _check_control(self) -> Iterator[Finding]:
        owner = self._primaries.owner(CONTROL)
        if owner is not None and owner in self._primaries.present:
            client, patience = self._primaries.at(owner), self._primaries.patience
            yield from by_node([(owner, check_control(client, patience, sharded=True))])

    def _check_room(self, app: App) -> Iterator[Finding]:
        # One for the subscriptions, and one to read the logs.
        reading = 2 if app.has_history else 1
        answers = self._primaries.ask(self._primaries.present, lambda client, _: find_room(client))
        rooms = [
            (room.left, address, room)
            for address, room in answers
            if room is not None and not isinstance(room, Exception)
        ]
        if rooms:
            # The one that has the least room.
            _, address, room = min(rooms)
            finding = judge_room(room, reading, self._nodes.connections)
            yield from by_node([(address, finding)])


def _check_version(client: ServerCommands, _: Address) -> Finding:
    return check_version(client, "redis+cluster://", _OLDEST)


def _check_settings(client: ServerCommands, _: Address) -> Iterator[Finding]:
    """Check what a node does while the cluster is down."""
    try:
        allowed = _ask_setting(client, _WHEN_DOWN)
    except redis.RedisError:
        # Managed services don't allow the question.
        return
    if allowed == "no":
        yield warn(
            "cluster settings",
            f"{_WHEN_DOWN} is no: while the cluster is down, nothing is published, and streams "
            f"don't begin",
            f"set {_WHEN_DOWN} to yes",
        )
    elif allowed == "yes":
        yield ok("cluster settings", "a lost primary stops only its own channels")


def _check_settings_with_history(client: ServerCommands, address: Address) -> Iterator[Finding]:
    try:
        is_full = _ask_setting(client, _FULL_COVERAGE) == "yes"
    except redis.RedisError:
        return
    if is_full:
        yield warn(
            "cluster settings",
            f"{_FULL_COVERAGE} is yes: while one primary is lost, nothing is published with "
            f"history on the others, either (CLUSTERDOWN)",
            f"set {_FULL_COVERAGE} to no, so that only the channels of the lost primary stop",
        )
    for finding in _check_settings(client, address):
        if not (is_full and finding.level is Level.OK):
            yield finding


def _ask_setting(client: ServerCommands, name: str) -> str:
    answer: list[bytes] = client.execute_command("CONFIG", "GET", name)
    return answer[1].decode() if answer else ""


def _ask_slots(client: ServerCommands, address: Address) -> Answer:
    return parse_answer(client.execute_command("CLUSTER", "SLOTS"), address)


def _ask_rows(client: ServerCommands, _: Address) -> list[Row]:
    return parse_rows(client.execute_command("CLUSTER", "NODES"))


def _ask_state(client: ServerCommands, _: Address) -> str:
    answer: bytes = client.execute_command("CLUSTER", "INFO")
    lines = answer.decode().splitlines()
    return dict(line.split(":", 1) for line in lines)["cluster_state"]
