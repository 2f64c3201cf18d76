"""What a node of a cluster sends on a Pub/Sub connection, matched with what was asked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import pytest
import redis

from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.pubsub import Arrival, Delivered, PubSubConnection, Refused, Subscribed
from tests.support.scripted_node import ScriptedNode, encode
from tests.support.waiting import wait_until

LIMIT: Final = 1 << 16
MOVED: Final = b"-MOVED 42 127.0.0.1:7001\r\n"


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    """Return a node."""
    with ScriptedNode() as node:
        yield node


@pytest.fixture
def connection(node: ScriptedNode) -> Iterator[PubSubConnection]:
    """Return a connection that is subscribed to ``a``."""
    connection = PubSubConnection(ClusterNodes([], {}).client(node.address), sharded=True)
    connection.subscribe([b"a"])
    assert receive(connection, 1) == [Subscribed(b"a")]
    yield connection
    connection.close()


def receive(connection: PubSubConnection, number: int) -> list[Arrival]:
    """Wait for a number of arrivals."""
    arrivals: list[Arrival] = []

    def has_all() -> bool:
        arrivals.extend(connection.read(LIMIT))
        return len(arrivals) >= number

    wait_until(has_all, f"{number} arrivals")
    return arrivals


def subscribed(name: bytes) -> bytes:
    """Return the confirmation of a subscription."""
    return encode([b"ssubscribe", name, 1])


def unsubscribed(name: bytes) -> bytes:
    """Return the answer to SUNSUBSCRIBE, or what a node sends without being asked."""
    return encode([b"sunsubscribe", name, 0])


def script(node: ScriptedNode, answers: Mapping[bytes, bytes]) -> None:
    """Let a node answer some commands, such as ``SSUBSCRIBE x``, in another way."""
    node.on_command = lambda command: answers.get(b" ".join(command))


def refused(arrivals: Sequence[Arrival]) -> list[bytes]:
    """Return the channels that are refused or withdrawn."""
    return [one.channel for one in arrivals if isinstance(one, Refused)]


def test_one_of_several_is_refused(node: ScriptedNode, connection: PubSubConnection) -> None:
    """An error is the answer to the command that is next, and the others are confirmed."""
    script(node, {b"SSUBSCRIBE c": MOVED})
    connection.subscribe([b"b", b"c", b"d"])
    arrivals = receive(connection, 3)
    assert [one.channel for one in arrivals] == [b"b", b"c", b"d"]
    assert refused(arrivals) == [b"c"]
    assert connection.channels == {b"a", b"b", b"d"}


def test_a_withdrawal_between_answers(node: ScriptedNode, connection: PubSubConnection) -> None:
    """What a node sends unasked is not taken for the answer to another command."""
    script(node, {b"SSUBSCRIBE b": unsubscribed(b"a") + subscribed(b"b")})
    connection.subscribe([b"b", b"c"])
    arrivals = receive(connection, 3)
    assert refused(arrivals) == [b"a"]
    assert arrivals[1:] == [Subscribed(b"b"), Subscribed(b"c")]
    assert not connection.is_confirmed(b"a")


def test_a_withdrawal_before_an_error(node: ScriptedNode, connection: PubSubConnection) -> None:
    """The error after it belongs to the command, not to the channel that was withdrawn."""
    script(node, {b"SSUBSCRIBE b": unsubscribed(b"a") + MOVED})
    connection.subscribe([b"b", b"c"])
    arrivals = receive(connection, 3)
    assert refused(arrivals) == [b"a", b"b"]
    assert connection.channels == {b"c"}


def test_a_withdrawal_while_nothing_is_asked(
    node: ScriptedNode, connection: PubSubConnection
) -> None:
    """It is noted once; a second one, or one of an unknown channel, means nothing."""
    node.send(b"sunsubscribe", b"a", 0)
    node.send(b"sunsubscribe", b"a", 0)
    assert refused(receive(connection, 1)) == [b"a"]
    connection.subscribe([b"b"])
    assert receive(connection, 1) == [Subscribed(b"b")]


def test_a_withdrawal_meets_our_own(node: ScriptedNode, connection: PubSubConnection) -> None:
    """The node ends a subscription just before it gets SUNSUBSCRIBE, and refuses a new one."""
    answers = {
        b"SUNSUBSCRIBE a": unsubscribed(b"a") + unsubscribed(b"a"),
        b"SSUBSCRIBE a": MOVED,
    }
    script(node, answers)
    connection.unsubscribe([b"a"])
    connection.subscribe([b"a", b"b"])
    arrivals = receive(connection, 2)
    assert refused(arrivals) == [b"a"]
    assert arrivals[1] == Subscribed(b"b")


def test_a_withdrawal_right_after_the_confirmation(
    node: ScriptedNode, connection: PubSubConnection
) -> None:
    """Both arrive in this order, so that the channel is lost at last."""
    script(node, {b"SSUBSCRIBE b": subscribed(b"b") + unsubscribed(b"b")})
    connection.subscribe([b"b"])
    arrivals = receive(connection, 2)
    assert arrivals[0] == Subscribed(b"b")
    assert refused(arrivals) == [b"b"]


def test_events_between_answers(node: ScriptedNode, connection: PubSubConnection) -> None:
    """Events are no answers."""
    script(node, {b"SSUBSCRIBE b": encode([b"smessage", b"a", b"1"]) + subscribed(b"b")})
    connection.subscribe([b"b"])
    assert receive(connection, 2) == [Delivered(b"a", b"1"), Subscribed(b"b")]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(subscribed(b"x"), id="of another channel"),
        pytest.param(encode([b"subscribe", b"b", 1]), id="of another kind"),
        pytest.param(subscribed(b"c") + subscribed(b"b"), id="in another order"),
    ],
)
def test_an_answer_to_no_command(
    node: ScriptedNode, connection: PubSubConnection, wrong: bytes
) -> None:
    """The connection is lost, since nothing can be matched any more; what came before counts."""
    script(node, {b"SSUBSCRIBE b": encode([b"smessage", b"a", b"1"]) + wrong})
    connection.subscribe([b"b", b"c"])
    assert receive(connection, 1) == [Delivered(b"a", b"1")]
    assert connection.has_more
    with pytest.raises(redis.InvalidResponse, match="answers no command"):
        connection.read(LIMIT)


def test_a_confirmation_that_nobody_has_asked_for(
    node: ScriptedNode, connection: PubSubConnection
) -> None:
    """It is ignored, for it can't shift anything: no command waits for an answer."""
    node.send(b"ssubscribe", b"a", 1)
    node.send(b"smessage", b"a", b"1")
    assert receive(connection, 1) == [Delivered(b"a", b"1")]
    connection.subscribe([b"b"])
    assert receive(connection, 1) == [Subscribed(b"b")]
    assert connection.is_confirmed(b"a")
