"""The subscriptions to a cluster, with nodes that say and refuse what a test wants."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from flask_sse._redis.cluster import subscription
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.subscription import ClusterSubscription
from flask_sse._redis.outage import Outage
from flask_sse._redis.pubsub import Arrival, Delivered, Refused, Subscribed
from flask_sse._redis.slots import SLOTS, slot
from flask_sse._system.poller import READ, Poller, Waker
from tests.support.scripted_node import ScriptedNode
from tests.support.waiting import PATIENCE, wait_until

LAST: Final = SLOTS - 1
MIDDLE: Final = SLOTS // 2
LOW, LOWER, HIGH = b"news", b"c", b"x"
LOOK: Final = b"CLUSTER SLOTS"


class Rig:
    """Subscriptions to two nodes, and a loop that a test turns.

    Node ``a`` has the lower half of the slots at first, and ``b`` the upper one.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.a, self.b = (stack.enter_context(ScriptedNode()) for _ in range(2))
        self.share((0, MIDDLE - 1, self.a), (MIDDLE, LAST, self.b))
        self.outage = Outage()
        self.wanted: set[bytes] = set()
        self.arrivals: list[Arrival] = []
        self.turns = 0
        self._waker, self._poller = Waker(), Poller()
        stack.callback(self._waker.close)
        stack.callback(self._poller.close)
        self._poller.register(self._waker.fileno(), READ)
        nodes = ClusterNodes([self.a.address, self.b.address], {})
        self.subscription = ClusterSubscription(nodes, self.outage, self._poller, self._waker)
        stack.callback(self._end)

    @property
    def looks(self) -> int:
        """How often any node was asked for the slots."""
        return self.a.asked[LOOK] + self.b.asked[LOOK]

    def share(self, *owners: tuple[int, int, ScriptedNode]) -> None:
        """Let all nodes say who has the slots."""
        self.a.owners = self.b.owners = [*owners]

    def want(self, *names: bytes) -> None:
        """Subscribe to channels."""
        self.wanted.update(names)
        for name in names:
            self.subscription.note_change(name)

    def leave(self, *names: bytes) -> None:
        """End the subscriptions to channels."""
        self.wanted.difference_update(names)
        for name in names:
            self.subscription.note_change(name)

    def turn(self) -> None:
        """Do what the hub's loop does in a turn."""
        self.turns += 1
        for descriptor, _ in self._poller.poll(self.subscription.timeout(0.5)):
            if descriptor == self._waker.fileno():
                self._waker.clear()
            else:
                self.subscription.note_ready(descriptor)
        self.arrivals += self.subscription.read(self.wanted)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Turn the loop until a condition is true."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"not in {self.turns} turns: {what}"
            self.turn()

    def wait_confirmed(self, *names: bytes) -> None:
        """Turn the loop until channels are confirmed."""
        self.wait(lambda: all(map(self.subscription.is_confirmed, names)), f"{names} are confirmed")

    def wait_looks(self, number: int) -> None:
        """Turn the loop until the nodes have been asked some more times."""
        until = self.looks + number
        self.wait(lambda: self.looks >= until, f"{number} more looks at the cluster")

    def wait_quiet(self) -> None:
        """Turn the loop until no change is expected."""
        self.wait(
            lambda: not self.subscription.is_connecting and self.subscription.timeout(60) > 1,
            "the next look is not soon",
        )

    def _end(self) -> None:
        def rests() -> bool:
            self.subscription.read(())
            return not self.subscription.is_connecting

        # As the hub does: it does not end while a thread is working.
        wait_until(rests, "no thread works")
        self.subscription.close()
        wait_until(lambda: not self.a.connections and not self.b.connections, "all is closed")


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Return subscriptions to two nodes, which look again soon after a change."""
    monkeypatch.setattr(subscription, "_CONFIRM_AFTER", 0.05)
    monkeypatch.setattr(subscription, "_FIRST_PAUSE", 0.03)
    with ExitStack() as stack:
        yield Rig(stack)


def test_the_channels_of_this_module() -> None:
    """Two of them are in the lower half of the slots, and one in the upper half."""
    assert [slot(name) < MIDDLE for name in (LOW, LOWER, HIGH)] == [True, True, False]


def test_each_channel_is_subscribed_at_its_node(rig: Rig) -> None:
    """Each node has one connection, with its own channels."""
    rig.want(LOW, LOWER, HIGH)
    rig.wait_confirmed(LOW, LOWER, HIGH)
    assert rig.a.subscribed == sorted([LOW, LOWER])
    assert rig.b.subscribed == [HIGH]
    rig.a.send(b"smessage", LOW, b"1")
    rig.wait(lambda: Delivered(LOW, b"1") in rig.arrivals, "an event")


def test_a_channel_that_a_node_withdraws(rig: Rig) -> None:
    """It is subscribed where it is now, and not again at the old node, which would accept it."""
    rig.want(LOW, LOWER)
    rig.wait_confirmed(LOW, LOWER)
    rig.share((0, LAST, rig.b))
    rig.a.withdraw(LOW)
    rig.wait(lambda: LOW in rig.b.subscribed, "it is subscribed elsewhere")
    rig.wait_confirmed(LOW)
    assert rig.a.asked[b"SSUBSCRIBE " + LOW] == 1
    assert not any(isinstance(one, Refused) for one in rig.arrivals)


def test_an_answer_from_before_the_withdrawal(rig: Rig) -> None:
    """A look that has begun before a channel was lost does not say where it is now."""
    rig.want(LOW)
    rig.wait_confirmed(LOW)
    rig.a.may_answer.clear()
    rig.b.may_answer.clear()
    rig.wait_looks(1)
    rig.share((0, LAST, rig.b))
    rig.a.withdraw(LOW)
    rig.wait(lambda: not rig.subscription.is_confirmed(LOW), "it is lost")
    rig.a.may_answer.set()
    rig.b.may_answer.set()
    rig.wait_confirmed(LOW)
    assert rig.b.subscribed == [LOW]
    assert rig.a.asked[b"SSUBSCRIBE " + LOW] == 1


def test_a_node_that_says_that_another_one_has_one_of_several(rig: Rig) -> None:
    """MOVED for one of several channels concerns this channel only."""
    rig.a.errors[LOW] = f"MOVED {slot(LOW)} {rig.b.address}"
    rig.want(LOW, LOWER, HIGH)
    rig.wait_confirmed(LOWER, HIGH)
    rig.wait(lambda: rig.a.asked[b"SSUBSCRIBE " + LOW], "a refusal")
    rig.share(
        (0, slot(LOW) - 1, rig.a), (slot(LOW), slot(LOW), rig.b), (slot(LOW) + 1, LAST, rig.a)
    )
    rig.wait_confirmed(LOW, LOWER)
    assert LOW in rig.b.subscribed
    assert LOWER in rig.a.subscribed
    assert rig.a.accepted - rig.a.asked[LOOK] == 1


def test_a_channel_that_is_refused_again_and_again(rig: Rig) -> None:
    """The cluster is looked at less and less often, and other channels go on."""
    rig.a.errors[LOW] = "CLUSTERDOWN The cluster is down"
    rig.want(LOW, LOWER)

    def pauses() -> bool:
        assert rig.looks < 500
        return not rig.subscription.is_connecting and rig.subscription.timeout(1.0) > 0.1

    rig.wait_confirmed(LOWER)
    rig.wait(pauses, "a longer pause")
    del rig.a.errors[LOW]
    rig.wait_confirmed(LOW)
    # What happens next is another trouble.
    looks = rig.looks
    rig.a.withdraw(LOW)
    rig.wait(lambda: rig.looks > looks, "a look at once")


def test_nodes_that_are_down_and_have_no_channels(rig: Rig) -> None:
    """They don't keep the loop busy."""
    rig.want(LOW, HIGH)
    rig.wait_confirmed(LOW, HIGH)
    for node in (rig.a, rig.b):
        node.is_down = True
        node.cut()
    rig.wait(lambda: rig.outage.is_on, "no node answers")
    rig.leave(LOW)
    accepted, rig.turns = rig.a.accepted, 0
    rig.wait(lambda: rig.a.accepted - accepted > 10, "ten more attempts")
    assert rig.turns < 1000
    rig.a.is_down = rig.b.is_down = False
    rig.wait_confirmed(HIGH)


def test_a_node_that_has_become_a_replica_unnoticed(rig: Rig) -> None:
    """Nobody tells it to those who have no channel there, so it is looked at first."""
    rig.want(HIGH)
    rig.wait_confirmed(HIGH)
    rig.wait_quiet()
    rig.share((0, LAST, rig.b))
    rig.want(LOW)
    rig.wait_confirmed(LOW)
    assert rig.b.subscribed == sorted([HIGH, LOW])
    assert not rig.a.asked[b"SSUBSCRIBE " + LOW]


def test_what_a_former_node_sends(rig: Rig) -> None:
    """Nobody gets an event twice if the old node sends it as well, as a replica does."""
    rig.want(LOW, LOWER)
    rig.wait_confirmed(LOW, LOWER)
    # It keeps sending, as if it were slow.
    rig.a.on_command = lambda command: b"" if command == [b"SUNSUBSCRIBE", LOW] else None
    number = slot(LOW)
    rig.share((0, number - 1, rig.a), (number, number, rig.b), (number + 1, LAST, rig.a))
    rig.a.withdraw(LOWER)
    rig.wait(lambda: LOW in rig.b.subscribed, "it is subscribed elsewhere")
    rig.wait_confirmed(LOW)
    rig.a.send(b"smessage", LOW, b"1")
    rig.b.send(b"smessage", LOW, b"1")
    rig.wait(lambda: Delivered(LOW, b"1") in rig.arrivals, "the event")
    for _ in range(3):
        rig.b.send(b"smessage", LOW, b"2")
    rig.wait(lambda: rig.arrivals.count(Delivered(LOW, b"2")) == 3, "the last one")
    assert rig.arrivals.count(Delivered(LOW, b"1")) == 1
    assert rig.arrivals.count(Subscribed(LOW)) == 2


def test_slots_that_no_node_has(rig: Rig) -> None:
    """A channel waits for its slot, which is looked for soon; the others are served."""
    rig.share((0, MIDDLE - 1, rig.a))
    rig.want(LOW)
    rig.wait_confirmed(LOW)
    rig.wait_quiet()
    rig.want(HIGH)
    rig.wait_looks(4)
    assert not rig.subscription.is_confirmed(HIGH)
    assert not rig.outage.is_on
    rig.share((0, MIDDLE - 1, rig.a), (MIDDLE, LAST, rig.b))
    rig.wait_confirmed(HIGH)


@pytest.mark.parametrize(
    "error", ["NOPERM this user has no permissions", "LOADING Redis is loading the dataset"]
)
def test_nodes_that_do_not_say_who_has_the_slots(rig: Rig, error: str) -> None:
    """If no node does, it is an outage, after which all goes on; one that does is enough."""
    rig.a.slots_error = rig.b.slots_error = error
    rig.want(LOW)
    rig.turns = 0
    rig.wait_looks(10)
    assert rig.turns < 200
    assert rig.outage.is_on
    rig.b.slots_error = None
    rig.wait_confirmed(LOW)
    assert not rig.outage.is_on


def test_many_channels_are_lost_at_once(rig: Rig) -> None:
    """One look at a time is enough for all of them."""
    names = [b"{c}%d" % number for number in range(1000)]
    rig.want(*names)
    rig.wait_confirmed(*names)
    looks = rig.looks
    rig.share((0, LAST, rig.b))
    for name in names:
        rig.a.withdraw(name)
    rig.wait(lambda: len(rig.b.subscribed) == len(names), "all are subscribed elsewhere")
    rig.wait_confirmed(*names)
    assert rig.looks - looks < 100


def test_a_connection_that_is_lost_again_and_again(rig: Rig) -> None:
    """It is made again each time, and none is left open."""
    rig.want(LOW, HIGH)
    for _ in range(10):
        rig.wait_confirmed(LOW, HIGH)
        rig.a.cut()
        rig.wait(lambda: not rig.subscription.is_confirmed(LOW), "it is lost")
    rig.wait_confirmed(LOW, HIGH)
    rig.wait(lambda: rig.a.connections == rig.b.connections == 1, "one each")
