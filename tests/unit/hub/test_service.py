"""The service of listeners without Redis: what remains of each kind when it joins and ends."""

import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import pytest
import redis
from flask import Flask

from flask_sse._event.channel_name import CONTROL
from flask_sse._event.revocation import Identity, Revocation
from flask_sse._hub.audience import Audience
from flask_sse._hub.clients import Clients
from flask_sse._hub.connection import Connection, Terms
from flask_sse._hub.hangups import Watch
from flask_sse._hub.service import END_EVERY, Service
from flask_sse._hub.shutdown import Shutdown
from flask_sse._hub.subscriber import Subscriber
from flask_sse._redis.outage import Outage
from flask_sse._redis.pubsub import Delivered, PubSubConnection, Refused, Subscribed
from flask_sse._redis.server_subscription import ServerSubscription
from flask_sse._system.clock import monotonic
from flask_sse._system.poller import Poller, Waker
from tests.support.waiting import PATIENCE

LIMIT: Final = 1 << 13
SOON: Final = 1e9
LATER: Final = 2e9
CHANNEL: Final = b"x"
OPENING: Final = b"head\r\n\r\n:\n"
REJECTION: Final = b"head\r\n\r\nretry:7\n"
EVENT: Final = Delivered(CHANNEL, b'{"data": "hello"}')
LARGE: Final = Delivered(CHANNEL, b'{"data": "%b"}' % (b"x" * LIMIT))


class Peer:
    """A client whose connection is handed over."""

    def __init__(self) -> None:
        server, self.client = socket.socketpair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server.setblocking(False)
        self.client.settimeout(PATIENCE)
        self.ended: list[Sequence[Callable[[], object]]] = []
        terms = Terms(b":\n", lambda: b"retry:7\n", LIMIT, self.ended.append)
        self.connection = Connection(
            server.detach(), b"head\r\n\r\n", terms, chunked=False, callbacks=[]
        )

    def read_all(self) -> bytes:
        """Return what arrives until the connection is closed."""
        received = b""
        while piece := self.client.recv(1 << 16):
            received += piece
        return received

    def close(self) -> None:
        """Close both ends."""
        self.connection.close()
        self.client.close()


class Rig:
    """A service, and what it serves."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        waker, poller = Waker(), Poller()
        stack.callback(waker.close)
        stack.callback(poller.close)
        self.watch = Watch()
        self.clients = Clients(poller, keepalive=None)
        subscription = ServerSubscription(_connect, Outage(None), poller, waker)
        self.audience = Audience(
            Flask("tests").json, None, None, subscription.note_change, lambda: None
        )
        self._shutdown = Shutdown()
        self.service = Service(
            self.audience,
            self.clients,
            self.watch,
            subscription,
            None,
            shutdown=self._shutdown,
            pause=lambda: None,
        )

    def adopt(self, end_by: float | None = None) -> Peer:
        """Hand over the connection of a new client."""
        peer = Peer()
        peer.connection.end_by = end_by
        self._stack.callback(peer.close)
        self.service.adopt(CHANNEL, peer.connection)
        return peer

    def join(
        self, end_by: float | None = None, name: str | None = None
    ) -> tuple[Subscriber, socket.socket]:
        """Add a client that the server's thread sends to; return the client's socket as well."""
        server, client = socket.socketpair()
        client.settimeout(PATIENCE)
        subscriber = Subscriber(LIMIT)
        subscriber.end_by = end_by
        subscriber.identity = None if name is None else Identity(name, monotonic())
        self._stack.callback(server.close)
        self._stack.callback(client.close)
        self._stack.callback(self.watch.discard, server, subscriber)
        self.watch.add(server, subscriber)
        self.service.join(CHANNEL, subscriber)
        return subscriber, client

    def stop(self) -> None:
        """End all streams."""
        self._shutdown.begin(0.0)
        self.service.end_all()


def _connect() -> PubSubConnection:
    raise AssertionError("nothing here connects to Redis")


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Return a service without listeners, whose descriptors are closed afterwards."""
    with ExitStack() as stack:
        yield Rig(stack)


def frames(subscriber: Subscriber) -> bytes | None:
    """Return what waits for a client; `None` at the end."""
    batches = subscriber.take(timeout=0)
    return None if batches is None else b"".join([batch.frames for batch in batches])


def test_both_kinds_get_the_same_events(rig: Rig) -> None:
    """They open when Redis has confirmed the subscription, and none gets events from before."""
    peer, (subscriber, _) = rig.adopt(), rig.join()
    assert not peer.connection.is_open
    assert not subscriber.is_open
    rig.service.dispatch([Subscribed(CHANNEL), EVENT])
    rig.service.dispatch([EVENT])
    assert frames(subscriber) == b"data:hello\n\n" * 2
    rig.stop()
    assert peer.read_all() == OPENING + b"data:hello\n\n" * 2
    assert peer.connection.events == 2
    assert frames(subscriber) is None


def test_a_stop_ends_both_kinds(rig: Rig) -> None:
    """Nothing is left of them, and later listeners are turned away."""
    peer, (subscriber, _) = rig.adopt(), rig.join()
    rig.service.dispatch([Subscribed(CHANNEL)])
    rig.stop()
    assert peer.read_all() == OPENING
    late, (later, _) = rig.adopt(), rig.join()
    assert late.read_all() == REJECTION
    for one in (peer, late):
        assert one.ended == [[]]
        assert one.connection.reason == "stop"
    for other in (subscriber, later):
        assert other.has_ended()
        assert other.reason == "stop"
    assert not rig.audience
    assert not rig.clients


def test_a_stop_waits_for_a_client_that_lags(rig: Rig) -> None:
    """Its channel has forgotten it, but it has until :meth:`Service.drop_all` to read."""
    peer = rig.adopt()
    rig.service.dispatch([Subscribed(CHANNEL)])
    rig.service.dispatch([LARGE])
    rig.stop()
    assert not rig.audience
    assert len(rig.clients) == 1
    assert not peer.ended
    rig.service.drop_all()
    assert not rig.clients
    assert peer.ended == [[]]


def test_a_client_that_has_sent_its_last_byte_at_a_stop(rig: Rig) -> None:
    """It may still read what waits for it, to the end."""
    peer = rig.adopt()
    rig.service.dispatch([Subscribed(CHANNEL)])
    rig.service.dispatch([LARGE])
    rig.stop()
    descriptor = peer.connection.descriptor
    rig.service.serve_socket(descriptor, select.EPOLLRDHUP)
    assert not peer.ended
    received = b""
    while not peer.ended:
        received += peer.client.recv(1 << 16)
        rig.service.serve_socket(descriptor, select.EPOLLOUT)
    received += peer.read_all()
    assert received == OPENING + b"data:%b\n\n" % (b"x" * LIMIT)
    assert not rig.clients


def test_a_channel_that_redis_forbids(rig: Rig) -> None:
    """The streams of both kinds end with the reason, also those of clients that do not read."""
    lagging = rig.adopt()
    rig.service.dispatch([Subscribed(CHANNEL)])
    rig.service.dispatch([LARGE])
    peer, (subscriber, _) = rig.adopt(), rig.join()
    rig.service.dispatch([Subscribed(CHANNEL)])
    rig.service.dispatch([EVENT])
    assert lagging.connection.is_lagging
    assert not peer.connection.is_lagging
    error = redis.ResponseError("NOPERM")
    rig.service.dispatch([Refused(CHANNEL, error)])
    assert peer.ended == lagging.ended == [[]]
    assert (peer.connection.events, lagging.connection.events) == (1, 2)
    assert subscriber.has_ended()
    assert (subscriber.reason, subscriber.error) == ("redis", error)
    assert not rig.audience
    assert not rig.clients


def test_clients_that_do_not_read(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Both kinds are disconnected with one complaint each, and those that read stay."""
    peer, (slow, client), (quick, _) = rig.adopt(), rig.join(), rig.join()
    rig.service.dispatch([Subscribed(CHANNEL)])
    for _ in range(2):
        rig.service.dispatch([LARGE])
        while quick.take(timeout=0):
            pass
    assert peer.connection.overflowed
    assert slow.overflowed
    assert peer.ended == [[]]
    assert client.recv(1) == b""
    assert caplog.text.count("a client of channel 'x' is disconnected") == 2
    assert not rig.clients
    channel = rig.audience.get(CHANNEL)
    assert channel is not None
    assert [*channel] == [quick]


def test_one_kind_is_not_mistaken_for_the_other(rig: Rig) -> None:
    """A subscriber that leaves takes no connection with it, and a connection no subscriber."""
    peer, (subscriber, _) = rig.adopt(), rig.join()
    rig.service.dispatch([Subscribed(CHANNEL)])
    channel = rig.audience.get(CHANNEL)
    assert channel is not None
    rig.service.give_up([subscriber])
    assert [*channel] == [peer.connection]
    assert len(rig.clients) == 1
    rig.service.join(CHANNEL, subscriber)
    rig.service.give_up([peer.connection])
    assert [*channel] == [subscriber]
    assert not rig.clients


def test_streams_of_a_certain_age(rig: Rig) -> None:
    """Both kinds end with what waits for them, and others stay."""
    peer, (subscriber, _) = rig.adopt(end_by=SOON), rig.join(end_by=SOON)
    other, (stays, _) = rig.adopt(end_by=LATER), rig.join()
    unopened = rig.adopt(end_by=SOON)
    rig.audience.discard(unopened.connection)
    rig.service.dispatch([Subscribed(CHANNEL), EVENT])
    rig.service.end_due(SOON - 1)
    assert not subscriber.has_ended()
    rig.service.end_due(SOON)
    rig.service.end_due(SOON + END_EVERY)
    assert peer.read_all() == OPENING + b"data:hello\n\n"
    assert unopened.read_all() == REJECTION
    assert frames(subscriber) == b"data:hello\n\n"
    assert frames(subscriber) is None
    assert peer.connection.reason == subscriber.reason == "age"
    assert peer.ended == [[]]
    channel = rig.audience.get(CHANNEL)
    assert channel is not None
    assert {*channel} == {other.connection, stays}
    assert [*rig.clients] == [other.connection]


def test_clients_that_do_not_read_the_end(rig: Rig) -> None:
    """They have ten seconds for it, and then are disconnected, whatever the kind."""
    peer, (subscriber, client) = rig.adopt(end_by=SOON), rig.join(end_by=SOON)
    reader = rig.adopt(end_by=SOON)
    rig.service.dispatch([Subscribed(CHANNEL), LARGE])
    descriptor = reader.connection.descriptor
    rig.service.end_due(SOON)
    rig.service.end_due(SOON + END_EVERY)
    assert not rig.audience
    assert not peer.ended
    received = b""
    while not reader.ended:
        received += reader.client.recv(1 << 16)
        rig.service.serve_socket(descriptor, select.EPOLLOUT)
    received += reader.read_all()
    assert received == OPENING + b"data:%b\n\n" % (b"x" * LIMIT)
    rig.service.end_due(SOON + 9)
    assert not peer.ended
    rig.service.end_due(SOON + 10)
    assert peer.ended == [[]]
    assert client.recv(1) == b""
    assert peer.connection.reason == subscriber.reason == "age"
    assert not rig.clients


def test_a_subscriber_that_leaves_in_time(rig: Rig) -> None:
    """Nothing is done for it later."""
    subscriber, client = rig.join(end_by=SOON)
    rig.service.dispatch([Subscribed(CHANNEL)])
    rig.service.leave(subscriber)
    rig.service.end_due(SOON + 100)
    assert subscriber.reason == "client"
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)


def test_many_streams_of_the_same_age(rig: Rig) -> None:
    """Only a few end at a time, so that the streams of others go on in between."""
    subscribers = [rig.join(end_by=SOON)[0] for _ in range(50)]
    rig.service.dispatch([Subscribed(CHANNEL)])
    numbers: list[int] = []
    for turn in range(len(subscribers)):
        before = sum(one.has_ended() for one in subscribers)
        rig.service.end_due(SOON + turn * END_EVERY)
        numbers.append(sum(one.has_ended() for one in subscribers) - before)
        rig.service.end_due(SOON + (turn + 0.5) * END_EVERY)
        assert sum(one.has_ended() for one in subscribers) == before + numbers[-1]
        if not rig.service.must_end_more:
            break
    assert sum(numbers) == 50
    assert max(numbers) < 20
    assert len(numbers) < 50


def test_a_named_client_waits_for_the_control_channel(rig: Rig) -> None:
    """It begins when both channels are subscribed, in whichever order."""
    first, (named, _) = rig.adopt(), rig.join(name="alice")
    rig.service.dispatch([Subscribed(CHANNEL), EVENT])
    assert first.connection.is_open
    assert not named.is_open
    assert rig.service.has_listeners
    assert CONTROL in rig.service.wanted
    rig.service.dispatch([Subscribed(CONTROL), Subscribed(CHANNEL), EVENT])
    assert frames(named) == b"data:hello\n\n"
    rig.service.dispatch([Delivered(CONTROL, Revocation("alice").to_payload()), EVENT])
    rig.service.end_due(monotonic())
    assert frames(named) == b"data:hello\n\n"
    assert frames(named) is None
    assert named.reason == "disconnect"
    assert not first.ended


def test_a_stop_ends_streams_that_wait(rig: Rig) -> None:
    """Also those that wait for the control channel only."""
    waiting, _ = rig.join(name="alice")
    assert not rig.audience
    assert rig.service.has_listeners
    rig.stop()
    assert waiting.has_ended()
    assert waiting.reason == "stop"
    assert not rig.service.has_listeners
