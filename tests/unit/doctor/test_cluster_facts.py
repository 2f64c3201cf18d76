"""What the doctor concludes from the answers of a cluster's nodes."""

from collections.abc import Mapping, Sequence
from typing import Final

import pytest
import redis

from flask_sse._doctor.cluster_facts import (
    Row,
    by_node,
    channels_of,
    explain_lost,
    explain_refusal,
    missing_rule,
    parse_answer,
    parse_rows,
    uncovered,
)
from flask_sse._doctor.finding import Finding, Level, fail, ok
from flask_sse._doctor.redis_node import Room, judge_room, judge_version
from flask_sse._redis.cluster.topology import SlotMap
from flask_sse._redis.slots import SLOTS, slot
from flask_sse._redis.url import Address

ONE: Final = Address("one", 7000)
TWO: Final = Address("two", 7001)
THREE: Final = Address("three", 7002)

_NODES: Final = (
    b"aa one:7000@17000,host myself,master - 0 0 1 connected 0-5460\n"
    b"bb two:7001@17001 master,fail? - 0 0 2 connected 5461-10922\n"
    b"cc three:7002@17002 slave,fail bb 0 0 2 disconnected\n"
)


def test_slots_of_a_node() -> None:
    """The answer names the primaries and their ids; a node may leave out its own host."""
    answer = parse_answer(
        [
            [0, 5460, [b"", 7000, b"aa", []], [b"three", 7002, b"cc", []]],
            [5461, 16_383, [b"two", 7001, b"bb", [b"hostname", b"x"]]],
        ],
        ONE,
    )
    assert answer.ids == {ONE: "aa", TWO: "bb", THREE: "cc"}
    assert answer.replicas == {THREE}
    assert [one.owner for one in answer.view.ranges] == [ONE, TWO]


def test_slots_without_ids() -> None:
    """Some services leave the ids out."""
    assert parse_answer([[0, 16_383, [b"one", 7000]]], ONE).ids == {ONE: ""}


def test_rows() -> None:
    """Of each node, only three facts count; a failure that is only suspected counts, too."""
    assert parse_rows(_NODES) == [
        Row("aa", is_self=True, has_failed=False),
        Row("bb", is_self=False, has_failed=True),
        Row("cc", is_self=False, has_failed=True),
    ]


@pytest.mark.parametrize(
    ("free", "ranges"),
    [
        ([], []),
        ([0], ["0"]),
        ([5, 6, 7, 9], ["5-7", "9"]),
        ([SLOTS - 2, SLOTS - 1], ["16382-16383"]),
        (range(SLOTS), ["0-16383"]),
    ],
)
def test_uncovered(free: Sequence[int], ranges: list[str]) -> None:
    """Slots without a primary are named as ranges."""
    missing = {*free}
    slots = SlotMap([None if number in missing else ONE for number in range(SLOTS)])
    assert uncovered(slots) == ranges


def test_channels() -> None:
    """There is a channel for each primary, and the given one is among them."""
    owners = [ONE, TWO, THREE]
    slots = SlotMap([owners[number % 3] for number in range(SLOTS)])
    found = channels_of(slots, "new", "given")
    assert found.keys() == {*owners}
    assert "given" in found.values()
    assert all(slots.owner(slot(name.encode())) == owner for owner, name in found.items())
    assert channels_of(SlotMap([None] * SLOTS), "new", "given") == {}


def test_equal_findings() -> None:
    """Equal findings are one line, and all nodes are counted only where all is well."""
    same, bad = ok("redis version", "7.0"), fail("redis version", "6.2", "update")
    assert [one.found for one in by_node([(ONE, same), (TWO, same)], 2)] == ["all 2 primaries: 7.0"]
    assert [one.found for one in by_node([(ONE, same), (TWO, same)], 3)] == [
        "one:7000, two:7001: 7.0"
    ]
    assert [one.found for one in by_node([(ONE, same)], 1)] == ["one:7000: 7.0"]
    assert [*by_node([(ONE, bad), (TWO, same), (THREE, bad)], 3)] == [
        Finding(Level.FAIL, "redis version", "one:7000, three:7002: 6.2", "update"),
        Finding(Level.OK, "redis version", "two:7001: 7.0", ""),
    ]


@pytest.mark.parametrize(
    ("said", "check", "found"),
    [
        ({}, "redis", "two:7001: there is no connection: away"),
        (
            {ONE: parse_rows(_NODES)},
            "redis",
            "two:7001: there is no connection: away; the other nodes have lost it, too",
        ),
        (
            {ONE: [Row("bb", is_self=False, has_failed=False)]},
            "announced address",
            "the other nodes reach the one that they call two:7001; from here, there is no "
            "connection: away",
        ),
        (
            {THREE: [Row("bb", is_self=True, has_failed=False)], ONE: parse_rows(_NODES)},
            "announced address",
            "the node at three:7002 makes its clients connect to two:7001, where there is no "
            "connection: away",
        ),
    ],
)
def test_a_primary_that_does_not_answer(
    said: Mapping[Address, Sequence[Row]], check: str, found: str
) -> None:
    """It may be lost, or it may be somewhere else than it says."""
    finding = explain_lost(TWO, redis.ConnectionError("away."), "bb", said)
    assert (finding.level, finding.check, finding.found) == (Level.FAIL, check, found)


def test_a_primary_that_is_silent() -> None:
    """If there is no answer, the text of redis-py adds nothing."""
    finding = explain_lost(TWO, redis.TimeoutError("Timeout reading from socket"), "bb", {})
    assert finding.found == "two:7001: there is no answer in time"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("User app has no permissions to run the 'spublish' command", "+spublish"),
        ("this user has no permissions to run the 'cluster|slots' command", "+cluster|slots"),
        ("this user has no permissions to access one of the channels used as arguments", "&*"),
        ("User app has no permissions to access the 'x' channel", "&*"),
        ("No permissions to access a channel", "&*"),
        ("User app has no permissions to access the 'x' key", "~flask-sse:*"),
        ("No permissions to access a key", "~flask-sse:*"),
        ("The user executing the script can't publish to the channel mentioned", "&*"),
        ("ACL failure in script: User app has no permissions to run the 'xadd' command", "+xadd"),
        ("The cluster is down", None),
    ],
)
def test_missing_rules(text: str, rule: str | None) -> None:
    """The texts of several versions of Redis and Valkey name what is missing."""
    assert missing_rule(redis.ResponseError(text)) == rule


def test_refusals() -> None:
    """The remedy fits the error."""
    error = redis.ResponseError("this user has no permissions to run the 'spublish' command")
    remedy = explain_refusal("publish", error, None).remedy
    assert remedy == "on every node, run ACL SETUSER default +spublish"
    down = explain_refusal("history", redis.ResponseError("CLUSTERDOWN The cluster is down"), "app")
    assert "each slot has a primary" in down.remedy
    old = explain_refusal("subscribe", redis.ResponseError("unknown command 'SSUBSCRIBE'"), "app")
    assert old.remedy == "use Redis 7 or later, or Valkey"
    other = explain_refusal("publish", redis.ResponseError("MISCONF disk is full"), "app")
    assert other.remedy == "repeat the checks, and see the log of this node"


def test_versions() -> None:
    """A version that is too old is refused, and one that can't be read is not."""
    assert judge_version("6.2.14", "redis+cluster://", 7) == fail(
        "redis version", "6.2.14", "redis+cluster:// needs Redis 7 or later"
    )
    for version in ("7.0.15", "8.2.3", "255.255.255", "unstable"):
        assert judge_version(version, "redis+cluster://", 7) == ok("redis version", version)


def test_room() -> None:
    """What is left must do for another process."""
    assert judge_room(Room(2, 100), 1, 50).level is Level.OK
    assert judge_room(Room(70, 100), 1, 50).level is Level.WARN
    assert judge_room(Room(99, 100), 1, 50).level is Level.FAIL
