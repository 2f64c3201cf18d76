"""What the nodes of a Redis Cluster say about it, and what that means for an application.

Pure; nothing blocks. The answers of CLUSTER SLOTS and CLUSTER NODES:
https://redis.io/docs/latest/commands/cluster-slots/
https://redis.io/docs/latest/commands/cluster-nodes/
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple, cast

import redis

from flask_sse._doctor.finding import Finding, Level, fail, warn
from flask_sse._redis import lease_commands
from flask_sse._redis.cluster.errors import has_code, is_unsupported
from flask_sse._redis.cluster.topology import SlotMap, View, parse
from flask_sse._redis.slots import SLOTS, slot
from flask_sse._redis.url import Address

_COMMAND: Final = re.compile("permissions to run the '([^']+)' command")
CHANNELS: Final = "&*"
"""The rule that is missing where a user may not use a channel."""
_KEYS: Final = "~flask-sse:*"
_IN_SCRIPTS: Final = "+type +get +set +xadd +xrange +xrevrange +expire +pttl +del +spublish +pubsub"
_RULES: Final[Mapping[str, str]] = {
    # The texts differ from version to version.
    r"ermissions to access .*\bchannels?\b": CHANNELS,
    r"ermissions to access .*\bkeys?\b": _KEYS,
    # Inside scripts, Redis 7.0 does not name the command.
    "can't publish to the channel": CHANNELS,
    "can't access at least one of the keys": _KEYS,
    "can't run this command": _IN_SCRIPTS,
}
_ANNOUNCE: Final = (
    "make the nodes announce an address that the app can reach: set cluster-announce-ip, or "
    "cluster-announce-hostname with cluster-preferred-endpoint-type hostname, and "
    "cluster-announce-port, on every node"
)


_ID: Final = 2
"""The place of a node's id, which some services leave out."""


class Row(NamedTuple):
    """What a node says about one node."""

    id: str
    is_self: bool
    has_failed: bool
    """Whether it has lost that node."""


class Answer(NamedTuple):
    """What a node says about the cluster."""

    view: View
    ids: Mapping[Address, str]
    """The id of each node that has slots, and of their replicas."""
    replicas: frozenset[Address] = frozenset()
    """Those of them that are replicas."""


def parse_answer(slots: object, asked: Address) -> Answer:
    """Parse the answer to CLUSTER SLOTS."""
    ids: dict[Address, str] = {}
    replicas: set[Address] = set()
    for _, _, *nodes in cast("list[list[list[bytes]]]", slots):
        for number, node in enumerate(nodes):
            # As if it were a primary.
            [found] = parse([[0, 0, node]], asked)
            ids[found.owner] = node[_ID].decode() if len(node) > _ID else ""
            if number:
                replicas.add(found.owner)
    return Answer(View(asked, [*parse(slots, asked)]), ids, frozenset(replicas))


def parse_rows(nodes: bytes) -> list[Row]:
    """Parse the answer to CLUSTER NODES."""
    rows: list[Row] = []
    for line in nodes.decode().splitlines():
        name, _, flags, *_ = line.split(" ")
        known = flags.split(",")
        rows.append(Row(name, "myself" in known, not {"fail", "fail?"}.isdisjoint(known)))
    return rows


def uncovered(slots: SlotMap) -> list[str]:
    """Return the slots that no node has, as ranges."""
    found: list[str] = []
    first: int | None = None
    for number in range(SLOTS + 1):
        is_free = number < SLOTS and slots.owner(number) is None
        if is_free and first is None:
            first = number
        elif not is_free and first is not None:
            found.append(f"{first}-{number - 1}" if first < number - 1 else f"{first}")
            first = None
    return found


def channels_of(slots: SlotMap, prefix: str, first: str) -> dict[Address, str]:
    """Return a channel for each primary.

    :param prefix: How the names of new channels begin.
    :param first: A channel that must be among them.
    """
    found: dict[Address, str] = {}
    for number in count():
        name = f"{prefix}.{number}" if number else first
        owner = slots.owner(slot(name.encode()))
        if owner is not None:
            found.setdefault(owner, name)
        if len(found) == len(slots.primaries) or number > 100 * SLOTS:
            break
    return found


def by_node(findings: Iterable[tuple[Address, Finding]], number: int = 0) -> Iterator[Finding]:
    """Yield the findings about some nodes, and each only once, with the names of its nodes.

    :param number: How many primaries there are. Where all is well on all of them, no node is named.
    """
    nodes: dict[Finding, list[Address]] = {}
    for address, finding in findings:
        nodes.setdefault(finding, []).append(address)
    for finding, addresses in nodes.items():
        names = ", ".join(map(str, addresses))
        if finding.level is Level.OK and len(addresses) == number > 1:
            names = f"all {number} primaries"
        yield finding._replace(found=f"{names}: {finding.found}")


def explain_lost(
    address: Address, error: Exception, name: str, said: Mapping[Address, Sequence[Row]]
) -> Finding:
    """Return the finding about a primary that does not answer.

    :param name: Its id.
    :param said: What the nodes that answer say.
    """
    reason = f"there is no connection: {str(error).removesuffix('.')}"
    if isinstance(error, redis.TimeoutError):
        reason = "there is no answer in time"
    twins = [asked for asked, rows in said.items() if Row(name, True, False) in rows]
    if twins:
        return fail(
            "announced address",
            f"the node at {twins[0]} makes its clients connect to {address}, where {reason}",
            _ANNOUNCE,
        )
    opinions = [row.has_failed for rows in said.values() for row in rows if row.id == name]
    if any(opinions):
        return fail(
            "redis",
            f"{address}: {reason}; the other nodes have lost it, too",
            "start it; if it is a primary, make a replica take its place: until then, nothing is "
            "published on the channels of its slots",
        )
    if opinions:
        return fail(
            "announced address",
            f"the other nodes reach the one that they call {address}; from here, {reason}",
            f"run the doctor where the app runs, and look for a firewall; otherwise {_ANNOUNCE}",
        )
    return fail("redis", f"{address}: {reason}", "start it, or look for a firewall")


def about_replica(finding: Finding) -> Finding:
    """Return a finding about a replica, which is not used yet."""
    found = f"{finding.found}; it is a replica, which is needed when it takes its primary's place"
    return warn(finding.check, found, finding.remedy)


def missing_rule(error: Exception) -> str | None:
    """Return what ACL SETUSER must add after an error; `None` if it is about something else.

    >>> missing_rule(ValueError("User app has no permissions to run the 'spublish' command"))
    '+spublish'
    """
    text = str(error)
    if found := _COMMAND.search(text):
        # A stream that ends needs the other one.
        return "+ssubscribe +sunsubscribe" if found[1] == "ssubscribe" else f"+{found[1]}"
    return next((rule for sign, rule in _RULES.items() if re.search(sign, text)), None)


def explain_refusal(check: str, error: redis.RedisError, user: str | None) -> Finding:
    """Return the finding about a command that a node has refused.

    :param user: The user's name; `None` for the default user.
    """
    rule = missing_rule(error)
    if rule == _IN_SCRIPTS and check == "presence":
        rule = lease_commands.IN_SCRIPTS
    remedy = "repeat the checks, and see the log of this node"
    if rule is not None:
        remedy = f"on every node, run ACL SETUSER {user or 'default'} {rule}"
        if rule == CHANNELS:
            remedy += "; if this user may use only some channels, choose one with --channel"
    elif is_unsupported(error):
        remedy = "use Redis 7 or later, or Valkey"
    elif has_code(error, "CLUSTERDOWN"):
        remedy = "make sure that each slot has a primary: see the check of the slots"
    return fail(check, str(error), remedy)
