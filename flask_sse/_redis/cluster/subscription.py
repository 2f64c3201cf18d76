"""The hub's subscriptions to a cluster: one connection for each primary that has channels.

Only the hub's loop uses it. Nothing blocks: connections are made, and the cluster is looked at,
in separate threads.

Each channel has its owner, the node with the channel's slot. A channel whose node no longer has
it waits for a look at the cluster that begins afterwards. Until then, its streams stay open, and
the other channels don't notice. A node that fails keeps its channels until another node is said
to have them.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

import redis
from redis.backoff import FullJitterBackoff

from flask_sse._redis.attempt import Attempt
from flask_sse._redis.cluster.errors import explain_connecting
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.topology import SlotMap, look
from flask_sse._redis.outage import Outage
from flask_sse._redis.pubsub import Arrival, Delivered, PubSubConnection, Refused, Subscribed
from flask_sse._redis.server_subscription import ServerSubscription
from flask_sse._redis.slots import slot
from flask_sse._redis.url import Address
from flask_sse._system.clock import monotonic
from flask_sse._system.poller import Poller, Waker

_LOOK_EVERY: Final = 10.0
"""Seconds after which the cluster is looked at, even if there is no sign of a change."""
_CONFIRM_AFTER: Final = 1.0
"""Seconds after which a change is confirmed: by then, all nodes know about it."""
_CALM_BEFORE_LOOK: Final = 1.0
"""Seconds before a look in which the loop may not wait for as long as it wants."""
_CHECK_EVERY: Final = 0.1
"""Seconds after which a connection is checked on which nothing has arrived."""
_FIRST_PAUSE: Final = 0.05
_MOST_DOUBLINGS: Final = 3
"""How often that is doubled at first, for looks in trouble: to 0.4 seconds at most."""
_QUICK_LOOKS: Final = 150
"""How many looks follow each other so soon: those of about 30 seconds."""
_LONGEST_PAUSE: Final = 0.8
"""Seconds between two looks later, and between two attempts to connect to a node, at most."""
_ELSEWHERE: Final = ("MOVED", "ASK", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "TRYAGAIN")
"""The errors of a node that can't serve a channel, perhaps because another one has it."""


class _Node:
    """One primary, and the channels that it should send."""

    __slots__ = ("address", "channels", "outage", "subscription")

    def __init__(
        self, address: Address, nodes: ClusterNodes, outage: Outage, poller: Poller, waker: Waker
    ) -> None:
        self.address = address
        self.channels: set[bytes] = set()
        self.outage = outage.of_node(str(address), _LONGEST_PAUSE)
        connect = partial(PubSubConnection, nodes.client(address), sharded=True)
        self.subscription = ServerSubscription(connect, self.outage, poller, waker)

    def close(self) -> None:
        self.subscription.close()
        self.outage.note_unneeded()


class ClusterSubscription:
    """The subscriptions to the wanted channels, each on the node that has it.

    :param nodes: Makes the clients of the nodes.
    :param outage: The time in which no node answers.
    :param poller: Watches the connections' descriptors.
    :param waker: Ends the loop's wait when a thread has finished.
    """

    def __init__(self, nodes: ClusterNodes, outage: Outage, poller: Poller, waker: Waker) -> None:
        self._make = partial(_Node, nodes=nodes, outage=outage, poller=poller, waker=waker)
        self._cluster = nodes
        self._outage = outage
        self._waker = waker
        self._nodes: dict[Address, _Node] = {}
        self._owners: dict[bytes, _Node] = {}
        # The channels that no node has, and the time from which on an answer may say which has it.
        self._orphans: dict[bytes, float] = {}
        self._changed: set[bytes] = set()
        # In most turns, one node has an event and nothing else happens. Such a turn should cost as
        # much as with one Redis. So before this time, only nodes are looked at that have sent
        # something, ...
        self._calm_until = 0.0
        # ... which the poller tells. Nodes with more to do than that are looked at in each turn.
        self._ready: list[int] = []
        self._descriptors: dict[int, _Node] = {}
        self._restless: set[_Node] = set()
        self._checked = 0.0
        self._slots: SlotMap | None = None
        self._look: Attempt[SlotMap] | None = None
        self._look_began = 0.0
        self._next_look = 0.0
        # While a look does not help, the next one is not before this.
        self._earliest_look = 0.0
        self._looks_in_trouble = 0
        # The channels that their nodes have neither confirmed nor refused.
        self._pending: set[bytes] = set()
        # The nodes that no longer have a channel.
        self._suspects: set[Address] = set()
        self._backoff = FullJitterBackoff(cap=_LONGEST_PAUSE, base=_FIRST_PAUSE)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to any node."""
        return any(node.subscription.is_connected for node in self._nodes.values())

    @property
    def is_connecting(self) -> bool:
        """Whether a thread is working whose result the loop must handle."""
        return self._look is not None or any(
            node.subscription.is_connecting for node in self._nodes.values()
        )

    @property
    def has_more(self) -> bool:
        """Whether :meth:`read` has left data that a poller may not see."""
        return any(node.subscription.has_more for node in self._restless)

    def timeout(self, longest: float) -> float:
        """Return how many seconds the loop may wait for descriptors."""
        if self._calm_until:
            return longest
        if self._changed:
            return 0.0
        if self._look is None:
            longest = min(longest, max(0.0, self._next_look - monotonic()))
        for node in self._restless:
            # A connection that is lost is not made again for a node without channels.
            if node.channels or node.subscription.is_connected:
                longest = node.subscription.timeout(longest)
        return longest

    def note_ready(self, descriptor: int) -> None:
        """Note that the poller has found something to read."""
        self._ready.append(descriptor)

    def note_change(self, channel: bytes) -> None:
        """Make the next :meth:`read` check whether a channel is wanted."""
        self._changed.add(channel)
        self._calm_until = 0.0

    def is_confirmed(self, channel: bytes) -> bool:
        """Whether the channel's node has confirmed that it sends this channel's events."""
        node = self._owners.get(channel)
        return node is not None and node.subscription.is_confirmed(channel)

    def read(self, wanted: Collection[bytes]) -> Sequence[Arrival]:
        """Subscribe to the wanted channels only, and return what has arrived."""
        now = monotonic()
        is_calm = now < self._calm_until
        if not is_calm:
            self._calm_until = 0.0
            if self._changed:
                self._align(wanted, now)
            if self._look is not None and self._look.is_done:
                self._finish_look(now)
        arrivals: list[Arrival] = []
        for node in self._to_read(now, is_calm=is_calm):
            was_away = node.outage.is_on
            for arrival in node.subscription.read(node.channels):
                if self._owners.get(arrival.channel) is not node:
                    # The node that has the channel now sends the same events.
                    continue
                if isinstance(arrival, Delivered) or self._accept(node, arrival, now):
                    arrivals.append(arrival)
            if not node.subscription.is_quiet or node in self._restless:
                self._settle(node)
                if node.outage.is_on and not was_away:
                    self._look_soon(now)
        if not is_calm:
            if wanted and self._look is None and now >= self._next_look:
                self._begin_look(now)
            self._calm_down(now)
        return arrivals

    def close(self) -> None:
        """Close the connections, or abandon the attempts to make them."""
        if self._look is not None:
            self._look.abandon()
            self._look = None
        for node in self._nodes.values():
            node.close()
        self._nodes.clear()
        self._restless.clear()

    # The channels

    def _align(self, wanted: Collection[bytes], now: float) -> None:
        changed, self._changed = self._changed, set()
        for name in changed:
            if name not in wanted:
                self._orphans.pop(name, None)
                self._pending.discard(name)
                if (node := self._owners.pop(name, None)) is not None:
                    self._discard(node, name)
            elif name not in self._owners and name not in self._orphans:
                self._add(name, now)

    def _add(self, name: bytes, now: float) -> None:
        """Subscribe to a channel, after a look if what is known may be wrong without a sign."""
        address = None if self._slots is None else self._slots.owner(slot(name))
        node = None if address is None else self._nodes.get(address)
        if self._slots is None or (node is not None and node.channels):
            self._place(name)
        else:
            # A node that becomes a replica tells this only to those who have channels there.
            self._orphans[name] = now
        if name in self._orphans:
            self._look_soon(now)

    def _place(self, name: bytes) -> None:
        """Subscribe to a channel at the node that has its slot, if it is known."""
        address = None if self._slots is None else self._slots.owner(slot(name))
        if address is None:
            self._orphans.setdefault(name, 0.0)
            return
        self._orphans.pop(name, None)
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = self._make(address)
        self._owners[name] = node
        self._pending.add(name)
        node.channels.add(name)
        self._note_change_at(node, name)

    def _discard(self, node: _Node, name: bytes) -> None:
        """Unsubscribe from a channel at a node."""
        node.channels.discard(name)
        self._note_change_at(node, name)

    def _note_change_at(self, node: _Node, name: bytes) -> None:
        node.subscription.note_change(name)
        self._restless.add(node)

    def _accept(self, node: _Node, answer: Subscribed | Refused, now: float) -> bool:
        """Take in an answer; return whether it is a final one."""
        if isinstance(answer, Subscribed):
            self._note_success(answer.channel)
        elif _is_elsewhere(answer.error):
            self._lose(node, answer.channel, now)
            return False
        return True

    def _lose(self, node: _Node, name: bytes, now: float) -> None:
        """Note that a node does not have a channel any more, without saying where it is now."""
        if self._owners.get(name) is node:
            del self._owners[name]
            self._pending.discard(name)
            node.channels.discard(name)
            # A replica accepts subscriptions, too. So only an answer from now on counts.
            self._orphans[name] = now
            self._suspects.add(node.address)
            self._look_soon(now)

    # The nodes

    def _to_read(self, now: float, *, is_calm: bool) -> Collection[_Node]:
        ready, self._ready = self._ready, []
        if not is_calm and now - self._checked >= _CHECK_EVERY:
            self._checked = now
            return [*self._nodes.values()]
        found = [self._descriptors[one] for one in ready if one in self._descriptors]
        return {*found, *self._restless} if self._restless else found

    def _settle(self, node: _Node) -> None:
        """Note whether there is more to do at a node, whose connection may be another one."""
        if node.subscription.is_quiet:
            self._restless.discard(node)
        else:
            self._restless.add(node)
            self._calm_until = 0.0
        self._note_descriptors()

    def _note_descriptors(self) -> None:
        found = {node.subscription.descriptor: node for node in self._nodes.values()}
        self._descriptors = {one: node for one, node in found.items() if one is not None}

    def _calm_down(self, now: float) -> None:
        """Do less in the next turns if nothing is in progress, and nothing will be soon."""
        is_busy = self._changed or self._restless or self._look is not None
        if not is_busy and self._next_look - now > _CALM_BEFORE_LOOK:
            self._calm_until = self._checked + _CHECK_EVERY

    def _look_soon(self, now: float) -> None:
        """Look at the cluster at the first sign of trouble, and then less and less often."""
        self._next_look = min(self._next_look, max(now, self._earliest_look))
        self._calm_until = 0.0

    def _note_success(self, name: bytes) -> None:
        """Note that a node has confirmed a channel."""
        self._pending.discard(name)
        if not self._pending and not self._orphans:
            # The looks have helped. If a channel is lost now, it is another trouble.
            self._looks_in_trouble = 0
            self._earliest_look = 0.0

    def _begin_look(self, now: float) -> None:
        known = () if self._slots is None else self._slots.primaries
        doubted = {node.address for node in self._nodes.values() if node.outage.is_on}
        suspects, self._suspects = self._suspects, set()
        self._look_began = now
        function = partial(look, self._cluster, known, suspects=suspects, doubted=doubted)
        self._look = Attempt(function, lambda _: None, self._waker)
        self._look.start("flask-sse-topology")

    def _finish_look(self, now: float) -> None:
        attempt, self._look = self._look, None
        assert attempt is not None
        if attempt.result is None:
            error = attempt.error or redis.ConnectionError("the cluster does not answer")
            error = explain_connecting(error, ", ".join(map(str, self._cluster.start)))
            self._outage.note_failure(error)
            self._next_look = self._earliest_look = now + self._pause_in_trouble()
            return
        self._outage.note_success()
        has_changed = bool(self._orphans) or attempt.result != self._slots
        if attempt.result != self._slots:
            self._slots = attempt.result
            self._move()
        for name, since in [*self._orphans.items()]:
            if since <= self._look_began:
                self._place(name)
        self._drop_unused()
        self._schedule(now, _CONFIRM_AFTER if has_changed else _LOOK_EVERY)

    def _schedule(self, now: float, pause: float) -> None:
        """Decide when to look again.

        :param pause: Seconds to wait if there is no trouble.
        """
        is_in_trouble = bool(self._orphans) or any(
            node.outage.is_on for node in self._nodes.values()
        )
        if is_in_trouble or self._pending:
            self._earliest_look = now + self._pause_in_trouble()
        else:
            self._looks_in_trouble = 0
            self._earliest_look = 0.0
        self._next_look = max(self._earliest_look, 0.0 if is_in_trouble else now + pause)

    def _pause_in_trouble(self) -> float:
        """Return how many seconds to wait before the next look, if this one does not help."""
        self._looks_in_trouble += 1
        most = _MOST_DOUBLINGS + (self._looks_in_trouble > _QUICK_LOOKS)
        return self._backoff.compute(min(self._looks_in_trouble, most))

    def _move(self) -> None:
        """Subscribe again to the channels that belong to another node by now."""
        assert self._slots is not None
        for name, node in [*self._owners.items()]:
            if self._slots.owner(slot(name)) not in (node.address, None):
                self._discard(node, name)
                self._place(name)

    def _drop_unused(self) -> None:
        for address, node in [*self._nodes.items()]:
            if not node.channels:
                node.close()
                del self._nodes[address]
                self._restless.discard(node)
        self._note_descriptors()


def _is_elsewhere(error: Exception) -> bool:
    return str(error).startswith(_ELSEWHERE)
