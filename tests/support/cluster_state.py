"""What the nodes of a Redis Cluster say about it, and whether they agree."""

from collections.abc import Iterable
from typing import Final

from tests.support.cluster_node import ClusterNode, Row

SLOTS: Final = 16_384

_UNSETTLED: Final = {"fail", "fail?", "handshake", "noaddr"}


def owned_slots(nodes: Iterable[ClusterNode]) -> dict[ClusterNode, set[int]]:
    """Return which slots each node that can be reached owns, by its own account.

    Where two say so, the one with the later epoch is right, as it is for the nodes.
    """
    rows = [(node.own_row(), node) for node in nodes if node.is_present]
    taken: set[int] = set()
    owned: dict[ClusterNode, set[int]] = {}
    for row, node in sorted(rows, key=lambda pair: pair[0].epoch, reverse=True):
        owned[node] = {slot for part in row.slots for slot in part} - taken
        taken |= owned[node]
    return owned


def have_met(nodes: Iterable[ClusterNode]) -> bool:
    """Whether all nodes that can be reached know each other."""
    present = [node for node in nodes if node.is_present]
    return all(
        len(rows) == len(present)
        and all(row.is_linked and not row.flags & _UNSETTLED for row in rows)
        for rows in (_rows_of(present, node) for node in present)
    )


def problem(nodes: Iterable[ClusterNode]) -> str | None:
    """Return what is wrong with the cluster, apart from nodes that can't be reached."""
    present = [node for node in nodes if node.is_present]
    if not have_met(present):
        return "not all nodes can reach each other"
    for node in present:
        own = node.own_row()
        if node.state() != "ok":
            return f"the cluster is not usable for {node.port}"
        if own.moving:
            return f"{node.port} moves slots"
        if not own.is_primary and not node.has_link():
            return f"{node.port} does not receive what its primary writes"
    shapes = {
        frozenset((row.id, row.primary, row.slots) for row in _rows_of(present, node))
        for node in present
    }
    if len(shapes) != 1:
        return "the nodes don't agree"
    covered = sum(len(part) for _, _, slots in shapes.pop() for part in slots)
    return None if covered == SLOTS else f"only {covered} slots have an owner"


def _rows_of(present: list[ClusterNode], node: ClusterNode) -> list[Row]:
    """Return what a node says about those that can be reached."""
    ids = {other.id for other in present}
    return [row for row in node.rows() if row.id in ids]
