"""Which node of a cluster has which slots, as the nodes themselves say.

`look` blocks until some nodes have answered; the rest is pure. Up to three nodes are asked: a
primary that has just lost its slots may not know that yet. The answer of CLUSTER SLOTS:
https://redis.io/docs/latest/commands/cluster-slots/
"""

import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple, cast

import redis

from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.pubsub import LOST, open_connection
from flask_sse._redis.slots import SLOTS
from flask_sse._redis.url import Address
from flask_sse._system.clock import monotonic

_ASKED: Final = 3
_ANSWER_WITHIN: Final = 1.0
"""Seconds to wait for each node."""
_LOOK_WITHIN: Final = 5.0
"""Seconds after which no further node is asked."""


class Range(NamedTuple):
    """Consecutive slots and their primary."""

    first: int
    last: int
    owner: Address


class SlotMap:
    """The primaries of all slots.

    :param owners: The primary of each slot; `None` for a slot that no node has.
    """

    def __init__(self, owners: Sequence[Address | None]) -> None:
        self._owners = owners
        self.primaries = frozenset(owner for owner in owners if owner is not None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotMap) and self._owners == other._owners

    def owner(self, slot: int) -> Address | None:
        """Return the primary of a slot."""
        return self._owners[slot]


class View(NamedTuple):
    """What one node says."""

    node: Address
    ranges: Sequence[Range]


def merge(views: Sequence[View], doubted: Collection[Address] = ()) -> SlotMap:
    """Return what most of the nodes say, but no owner that says itself that it is none.

    After a failover, the old primary knows about it before most others.

    :param doubted: Nodes that have failed. If anybody names another owner, that one counts.
    """
    expanded = [_expand(view.ranges) for view in views]
    if all(owners == expanded[0] for owners in expanded):
        return SlotMap(expanded[0])
    asked = [view.node for view in views]
    owners = [_elect(asked, opinions, doubted) for opinions in zip(*expanded, strict=True)]
    return SlotMap(owners)


def _expand(ranges: Sequence[Range]) -> list[Address | None]:
    owners: list[Address | None] = [None] * SLOTS
    for first, last, owner in ranges:
        owners[first : last + 1] = [owner] * (last + 1 - first)
    return owners


def _elect(
    asked: Sequence[Address], opinions: Sequence[Address | None], doubted: Collection[Address]
) -> Address | None:
    votes = Counter(opinion for opinion in opinions if opinion is not None)
    if len(votes) > 1:
        for node, opinion in zip(asked, opinions, strict=True):
            if opinion != node:
                votes.pop(node, None)
    if not votes:
        return None
    return max(votes, key=lambda owner: (owner not in doubted, votes[owner]))


def parse(reply: object, asked: Address) -> Iterator[Range]:
    """Parse the answer to CLUSTER SLOTS.

    :param asked: The node that has answered; it does not say its own host if it does not know it.
    """
    for first, last, primary, *_ in cast("list[tuple[int, int, list[bytes | int | None]]]", reply):
        name, port = primary[0], primary[1]
        host = name.decode() if isinstance(name, bytes) else ""
        owner = Address(asked.host if host in ("", "?") else host, int(port or asked.port))
        yield Range(first, last, owner)


def look(
    nodes: ClusterNodes,
    known: Collection[Address],
    *,
    suspects: Collection[Address] = (),
    doubted: Collection[Address] = (),
) -> SlotMap:
    """Ask some nodes which of them has which slots.

    :param known: The nodes that were there the last time.
    :param suspects: Those of them that no longer have a channel; they are asked first.
    :param doubted: Those of them that have failed; they are asked last.
    :raises redis.RedisError: if none of them answers.
    """
    deadline = monotonic() + _LOOK_WITHIN
    views: list[View] = []
    problem: Exception | None = None
    found = [*dict.fromkeys([*known, *nodes.start])]
    random.shuffle(found)
    for address in sorted(found, key=lambda one: (one in doubted, one not in suspects)):
        try:
            views.append(View(address, _ask(nodes, address)))
        except LOST as error:
            problem = problem or error
        if len(views) == _ASKED or monotonic() > deadline:
            break
    if not views:
        raise problem or redis.ConnectionError("the cluster has no nodes")
    return merge(views, doubted)


def _ask(nodes: ClusterNodes, address: Address) -> list[Range]:
    connection = open_connection(nodes.client(address), _ANSWER_WITHIN)
    try:
        packed = connection.pack_commands([("CLUSTER", "SLOTS")])
        connection.send_packed_command(packed, check_health=False)
        return [*parse(connection.read_response(), address)]
    finally:
        connection.disconnect()
