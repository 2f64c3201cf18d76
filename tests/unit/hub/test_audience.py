"""The channels and their listeners, without sockets and without Redis."""

from typing import Final

import pytest
from flask import Flask

from flask_sse._hub.audience import Audience
from flask_sse._hub.batch import Batch
from flask_sse._hub.channel import Channel
from flask_sse._hub.subscriber import Subscriber

LIMIT: Final = 1000


class Rig:
    """An audience, and the changes that it has noted."""

    def __init__(self) -> None:
        self.changed: list[bytes] = []
        self.audience = Audience(Flask("tests").json, None, None, self.changed.append, lambda: None)

    def add(self, name: bytes) -> Subscriber:
        """Add a listener whose subscription is confirmed."""
        subscriber = Subscriber(LIMIT)
        subscriber.channel = name
        channel = self.audience.open(name)
        assert isinstance(channel, Channel)
        channel.add(subscriber)
        assert not channel.confirm()
        return subscriber


@pytest.fixture
def rig() -> Rig:
    """Return an audience without channels."""
    return Rig()


def frames(subscriber: Subscriber) -> bytes:
    """Return what waits for a listener."""
    return b"".join([batch.frames for batch in subscriber.take(timeout=0) or ()])


def test_a_channel_exists_as_long_as_it_has_listeners(rig: Rig) -> None:
    """Its first listener and its last one change what this process is subscribed to."""
    first, second = rig.add(b"x"), rig.add(b"x")
    assert [*rig.audience.names] == [b"x"]
    rig.changed.clear()
    rig.audience.discard(first)
    rig.audience.discard(first)
    assert rig.audience
    assert not rig.changed
    rig.audience.discard(second)
    assert not rig.audience
    assert rig.changed == [b"x"]
    rig.audience.discard(second)
    second.channel = b"never heard of"
    rig.audience.discard(second)
    assert rig.changed == [b"x"]


def test_events_reach_the_listeners_of_their_channel(rig: Rig) -> None:
    """Events that arrive together are one batch, also for several listeners."""
    listeners, other = [rig.add(b"x"), rig.add(b"x")], rig.add(b"y")
    assert [*rig.audience.arrived(b"x", [b'{"data": "1"}', b'{"data": "2"}'])] == []
    batches = [listener.take(timeout=0) for listener in listeners]
    assert [len(some or ()) for some in batches] == [1, 1]
    assert batches[0] == batches[1], "it is encoded once"
    assert frames(other) == b""
    assert [*rig.audience.arrived(b"never heard of", [b'{"data": "3"}'])] == []


def test_malformed_events(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """They are dropped with a warning, and do not affect those beside them."""
    listener = rig.add(b"x")
    rig.audience.arrived(b"x", [b"{", b'{"data": "1"}', b"[]"])
    assert frames(listener) == b"data:1\n\n"
    rig.audience.arrived(b"x", [b"{"])
    assert listener.take(timeout=0) == []
    assert "dropped malformed event number 1, on channel 'x'" in caplog.text


def test_a_listener_that_reads_too_slowly(rig: Rig) -> None:
    """It is returned, and the others get the event."""
    slow, quick = rig.add(b"x"), rig.add(b"x")
    payload = b'{"data": "%b"}' % (b"x" * LIMIT)
    assert [*rig.audience.arrived(b"x", [payload])] == []
    while frames(quick):
        pass
    assert [*rig.audience.arrived(b"x", [payload])] == [slow]
    assert len(frames(quick)) > LIMIT


def test_a_listener_waits_for_its_subscription() -> None:
    """Until then it gets nothing, and it can be discarded at any time."""
    channel = Channel(b"x")
    assert not channel
    subscriber, other = Subscriber(LIMIT), Subscriber(LIMIT)
    channel.add(subscriber)
    channel.add(other)
    assert [*channel] == [subscriber, other]
    channel.send(Batch((), b"data:early\n\n"), lambda: None)
    channel.discard(other)
    assert not channel.begin()
    assert subscriber.is_open
    assert not other.is_open
    channel.send(Batch((), b"data:late\n\n"), lambda: None)
    assert frames(subscriber) == b"data:late\n\n"
    channel.discard(subscriber)
    assert not channel
