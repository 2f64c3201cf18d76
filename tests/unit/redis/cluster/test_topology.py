"""Which node has which slots, if the nodes disagree."""

import pytest

from flask_sse._redis.cluster.topology import Range, SlotMap, View, merge, parse
from flask_sse._redis.slots import SLOTS
from flask_sse._redis.url import Address

A, B, C, D = (Address("127.0.0.1", port) for port in (7000, 7001, 7002, 7003))
MIDDLE = SLOTS // 2


def view(node: Address, *owners: Address) -> View:
    """Return what a node says: the slots are shared equally between some owners."""
    size = SLOTS // len(owners)
    ranges = [
        Range(number * size, number * size + size - 1, owner) for number, owner in enumerate(owners)
    ]
    return View(node, ranges)


def test_all_nodes_agree() -> None:
    """The map has the owner of each slot."""
    found = merge([view(A, A, B), view(B, A, B)])
    assert (found.owner(0), found.owner(SLOTS - 1)) == (A, B)
    assert found.primaries == {A, B}
    assert found == merge([view(A, A, B)])
    assert found != merge([view(A, B, A)])


def test_the_majority_counts() -> None:
    """One node that has not heard of a change is outvoted."""
    assert merge([view(A, A, B), view(B, A, B), view(C, B, B)]).owner(0) == A


def test_a_node_that_says_that_it_is_no_owner() -> None:
    """The old primary knows about a failover first, and two others do not know it yet."""
    assert merge([view(B, A, B), view(C, A, B), view(A, D, B)]).owner(0) == D


def test_no_owner_remains() -> None:
    """A slot whose owners all deny it has none until they agree."""
    found = merge([view(A, B, B), view(B, A, B)])
    assert found.owner(0) is None
    assert found.owner(SLOTS - 1) == B


@pytest.mark.parametrize("doubted", [A, B])
def test_equal_votes(doubted: Address) -> None:
    """If opinions are equal, the node that has failed does not count."""
    other = B if doubted == A else A
    assert merge([view(A, A), view(B, B)], [doubted]).owner(0) == other


def test_a_node_that_has_failed() -> None:
    """It has been replaced if anybody says so, although most have not heard of it yet."""
    views = [view(B, A, B), view(C, A, B), view(D, D, B)]
    assert merge(views).owner(0) == A
    assert merge(views, [A]).owner(0) == D
    assert merge(views[:2], [A]).owner(0) == A


def test_slots_that_no_node_has() -> None:
    """A cluster may have lost some slots."""
    found = merge([View(A, [Range(0, MIDDLE, A)])])
    assert found.owner(MIDDLE) == A
    assert found.owner(MIDDLE + 1) is None
    assert isinstance(found, SlotMap)


def test_the_answer_of_a_node() -> None:
    """A node that does not know its own host is the one that has been asked."""
    reply = [
        [0, 10, [b"10.0.0.1", 7000, b"id"], [b"10.0.0.2", 7001, b"replica"]],
        [11, 20, [b"", 7002, b"id"]],
        [21, 30, [None, 7003, b"id"]],
        [31, 31, [b"?", 7004, b"id", [b"hostname", b"x"]]],
        [32, 40, [b"redis-5.example", 7005, b"id"]],
    ]
    assert [*parse(reply, Address("asked.example", 6379))] == [
        Range(0, 10, Address("10.0.0.1", 7000)),
        Range(11, 20, Address("asked.example", 7002)),
        Range(21, 30, Address("asked.example", 7003)),
        Range(31, 31, Address("asked.example", 7004)),
        Range(32, 40, Address("redis-5.example", 7005)),
    ]


def test_addresses_as_text() -> None:
    """An address reads like the part of a URL."""
    assert str(Address("redis.example", 6379)) == "redis.example:6379"
    assert str(Address("::1", 6379)) == "[::1]:6379"
