"""Moves slots between the nodes of a Redis Cluster, as ``redis-cli --cluster reshard`` does."""

from collections.abc import Callable, Iterable
from typing import Final

from tests.support.cluster_node import ClusterNode
from tests.support.processes import LOOPBACK
from tests.support.waiting import wait_until

_KEYS_AT_ONCE: Final = 100
_TIMEOUT: Final = 10_000


def move_slot(
    slot: int,
    source: ClusterNode,
    to: ClusterNode,
    others: Iterable[ClusterNode],
    while_migrating: Callable[[], object] | None,
) -> None:
    """Move one slot key by key.

    :param others: The other primaries, which are told at the end.
    :param while_migrating: Called when the keys have moved, and the slot has not.
    """
    to.ask("SETSLOT", slot, "IMPORTING", source.id)
    source.ask("SETSLOT", slot, "MIGRATING", to.id)
    try:
        _move_keys(slot, source, to)
        if while_migrating is not None:
            while_migrating()
        _move_keys(slot, source, to)
        # The new owner first: others would send clients to a node that sends them back.
        for node in (to, source, *others):
            node.ask("SETSLOT", slot, "NODE", to.id)
    except BaseException:
        for node in (source, to):
            node.ask("SETSLOT", slot, "STABLE")
        raise


def move_slots(
    slots: range, source: ClusterNode, to: ClusterNode, others: Iterable[ClusterNode]
) -> None:
    """Move many slots, most of which have no keys."""
    if "valkey_version" in source.admin.info("server"):
        # Valkey answers to each SETSLOT when the replicas know it, which takes 25 ms.
        move_slots_atomically(slots, source, to)
        return
    _set_slots(to, slots, "IMPORTING", source.id)
    _set_slots(source, slots, "MIGRATING", to.id)
    for slot in slots:
        _move_keys(slot, source, to)
    for node in (to, source, *others):
        _set_slots(node, slots, "NODE", to.id)


def move_slots_atomically(slots: range, source: ClusterNode, to: ClusterNode) -> None:
    """Move slots at once, which Valkey can from version 9 on."""
    source.ask("MIGRATESLOTS", "SLOTSRANGE", slots.start, slots.stop - 1, "NODE", to.id)
    wait_until(lambda: to.own_row().has(slots.start), f"{slots} move")


def _set_slots(node: ClusterNode, slots: range, *state: str) -> None:
    with node.admin.pipeline(transaction=False) as pipeline:
        for slot in slots:
            pipeline.execute_command("CLUSTER", "SETSLOT", slot, *state)
        pipeline.execute()


def _move_keys(slot: int, source: ClusterNode, to: ClusterNode) -> None:
    password = source.options.get("requirepass")
    login = ["AUTH", password] if password else []
    while keys := source.admin.execute_command("CLUSTER", "GETKEYSINSLOT", slot, _KEYS_AT_ONCE):
        source.admin.execute_command(
            "MIGRATE", LOOPBACK, to.port, "", 0, _TIMEOUT, *login, "KEYS", *keys
        )
