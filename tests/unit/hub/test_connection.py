"""A connection after the hand-over, on a pair of real sockets."""

import socket
import tracemalloc
from collections.abc import Callable, Iterator, Sequence

import pytest

from flask_sse._connection import Connection, Terms
from flask_sse._subscriber import Batch
from tests.support.parser import Parser

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Peer:
    """A client, the connection to it, and the functions that were called when it ended."""

    def __init__(self, *, chunked: bool, limit: int = 1 << 20) -> None:
        server, self.client = socket.socketpair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server.setblocking(False)
        self.client.setblocking(False)
        self.ended: list[Sequence[Callable[[], object]]] = []
        terms = Terms(b":\n", lambda: b"retry:7\n", limit, self.ended.append)
        self.connection = Connection(server.detach(), HEAD, terms, chunked=chunked, callbacks=[])

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

    def make_one(*, chunked: bool = False, limit: int = 1 << 20) -> Peer:
        peers.append(Peer(chunked=chunked, limit=limit))
        return peers[-1]

    yield make_one
    for peer in peers:
        peer.connection.close()
        peer.client.close()


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
