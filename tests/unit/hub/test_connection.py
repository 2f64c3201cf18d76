"""A connection after the hand-over, on a pair of real sockets."""

import socket
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from flask import Flask

from flask_sse._callbacks.receivers import Notices
from flask_sse._callbacks.stream_signals import Visit
from flask_sse._hub.batch import Batch
from flask_sse._hub.connection import Connection, Terms
from flask_sse.signals import client_gone
from tests.support.parser import Parser
from tests.support.waiting import PATIENCE

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Peer:
    """A client, the connection to it, and the functions that were called when it ended."""

    def __init__(self, *, chunked: bool, limit: int, visit: Visit | None) -> None:
        server, self.client = socket.socketpair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server.setblocking(False)
        self.client.setblocking(False)
        self.ended: list[Sequence[Callable[[], object]]] = []
        terms = Terms(b":\n", lambda: b"retry:7\n", limit, self.ended.append)
        self.connection = Connection(
            server.detach(), HEAD, terms, chunked=chunked, callbacks=[], visit=visit
        )

    def read(self) -> bytes:
        """Return what has arrived."""
        received = b""
        try:
            while piece := self.client.recv(1 << 16):
                received += piece
        except BlockingIOError:
            pass
        return received


@pytest.fixture
def make() -> Iterator[Callable[..., Peer]]:
    """Return a function that makes peers, which are closed afterwards."""
    peers: list[Peer] = []

    def make_one(
        *, chunked: bool = False, limit: int = 1 << 20, visit: Visit | None = None
    ) -> Peer:
        peers.append(Peer(chunked=chunked, limit=limit, visit=visit))
        return peers[-1]

    yield make_one
    for peer in peers:
        peer.connection.close()
        peer.client.close()


@contextmanager
def counting() -> Iterator[tuple[Visit, list[int]]]:
    """Return a visit, and a list that has the number of sent bytes once the block has ended."""
    counted: list[int] = []

    def count(_: Flask, *, bytes_sent: int, **__: object) -> None:
        counted.append(bytes_sent)

    notices = Notices(Flask("tests"))
    with client_gone.connected_to(count):
        yield Visit(notices, b"tests", None), counted
        notices.finish(PATIENCE)


def batch(number: int, size: int = 1000) -> Batch:
    """Return a batch of one event."""
    return Batch((), b"data:%d %b\n\n" % (number, b"x" * size))


@pytest.mark.parametrize("chunked", [True, False])
def test_the_head_is_sent_with_the_first_bytes(make: Callable[..., Peer], chunked: bool) -> None:
    """Nothing is sent before the stream is open, and the end matches the framing."""
    peer = make(chunked=chunked)
    assert not peer.connection.is_open
    assert peer.read() == b""
    peer.connection.open()
    assert peer.connection.is_open
    assert peer.read() == HEAD + (b"2\r\n:\n\r\n" if chunked else b":\n")
    peer.connection.finish()
    peer.connection.close()
    assert peer.read() == (b"0\r\n\r\n" if chunked else b"")
    assert peer.client.recv(1) == b""


def test_a_rejection_is_a_whole_answer(make: Callable[..., Peer]) -> None:
    """A client that gets no stream is told when to reconnect, and that the answer is complete."""
    peer = make(chunked=True)
    peer.connection.reject()
    assert peer.read() == HEAD + b"8\r\nretry:7\n\r\n0\r\n\r\n"


def test_what_waits_keeps_its_order(make: Callable[..., Peer]) -> None:
    """Events to a client that reads little at a time arrive whole, all, and in order."""
    peer = make()
    peer.connection.open()
    for number in range(500):
        peer.connection.send(batch(number))
    assert peer.connection.is_lagging
    received = b""
    while peer.connection.is_lagging:
        received += peer.client.recv(700)
        peer.connection.flush()
    received += peer.read()
    parser = Parser()
    parser.feed(received.removeprefix(HEAD))
    assert [event.data.split()[0] for event in parser.events] == [str(n) for n in range(500)]


def test_the_limit(make: Callable[..., Peer]) -> None:
    """Exceeding the limit ends the connection, but one large event for an idle client does not."""
    peer = make(limit=50_000)
    peer.connection.open()
    peer.connection.send(batch(0, size=1_000_000))
    assert peer.connection.is_lagging
    assert not peer.connection.is_gone
    peer.connection.send(batch(1))
    assert peer.connection.is_gone
    assert peer.connection.overflowed


def test_a_client_that_is_gone_is_noticed(make: Callable[..., Peer]) -> None:
    """A failed send is noted, and does not raise an exception."""
    peer = make()
    peer.connection.open()
    peer.client.close()
    peer.connection.send(batch(0))
    assert peer.connection.is_gone


def test_a_client_that_is_gone_has_not_fallen_behind(make: Callable[..., Peer]) -> None:
    """No data waits for it, so the limit is not the reason for its end."""
    peer = make(limit=1000)
    peer.client.close()
    peer.connection.open()
    assert peer.connection.is_gone
    peer.connection.send(batch(0, size=2000))
    assert not peer.connection.overflowed


def test_the_end_is_told_once(make: Callable[..., Peer]) -> None:
    """A second `close` closes nothing: the descriptor may be another connection's by then."""
    peer = make()
    descriptor = peer.connection.descriptor
    peer.connection.close()
    with socket.socket() as other:
        assert other.fileno() == descriptor
        peer.connection.close()
        assert other.getsockname()
    assert peer.ended == [[]]


@pytest.mark.parametrize("reads_all", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_the_number_of_sent_bytes(
    make: Callable[..., Peer], chunked: bool, reads_all: bool
) -> None:
    """It is what the client can read of the body, even if the end of the response had to wait."""
    with counting() as (visit, counted):
        peer = make(chunked=chunked, visit=visit)
        peer.connection.open()
        for number in range(500):
            peer.connection.send(batch(number))
        peer.connection.finish()
        assert peer.connection.is_lagging
        received = peer.client.recv(700)
        peer.connection.flush()
        while reads_all and peer.connection.is_lagging:
            received += peer.client.recv(700)
            peer.connection.flush()
        assert peer.connection.is_lagging != reads_all
        peer.connection.close()
    received += peer.read()
    assert counted == [len(received.removeprefix(HEAD))]
    assert received.endswith(b"0\r\n\r\n") == (chunked and reads_all)


def test_what_exceeds_the_limit_is_not_counted(make: Callable[..., Peer]) -> None:
    """It has never been sent, like the data that was waiting."""
    with counting() as (visit, counted):
        peer = make(limit=1000, visit=visit)
        peer.connection.open()
        while not peer.connection.overflowed:
            peer.connection.send(batch(0))
        peer.connection.close()
    assert counted == [len(peer.read().removeprefix(HEAD))]


def test_an_end_waits_for_clients_that_are_there(make: Callable[..., Peer]) -> None:
    """It says that data must be sent first, unless the client can't get it any more."""
    idle, lagging, gone = make(), make(), make()
    for peer in (idle, lagging, gone):
        peer.connection.open()
    for peer in (lagging, gone):
        peer.connection.send(batch(0, size=100_000))
        assert peer.connection.is_lagging
    gone.client.close()
    gone.connection.flush()
    assert gone.connection.is_gone
    assert idle.connection.end("stop")
    assert not lagging.connection.end("stop")
    assert gone.connection.end("stop")


def test_a_large_event_is_not_copied_for_each_client(make: Callable[..., Peer]) -> None:
    """If an event for all clients has to wait, all clients share the same bytes."""
    large = batch(0, size=1_000_000)
    peers = [make() for _ in range(50)]
    tracemalloc.start()
    for peer in peers:
        peer.connection.send(large)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert all(peer.connection.is_lagging for peer in peers)
    assert used < 500_000
