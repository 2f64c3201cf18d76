"""The clients of streams that a server reads: clients that have left are noticed."""

import contextlib
import os
import socket
import weakref
from collections.abc import Callable, Iterator

import pytest

from flask_sse._hub.batch import Batch
from flask_sse._hub.hangups import Watch
from flask_sse._hub.subscriber import Subscriber
from tests.support.interrupting import run_with_interruptions
from tests.support.waiting import PATIENCE


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the server's end of a connection and the client's."""
    server, client = socket.socketpair()
    with server, client:
        yield server, client


def test_a_client_that_closes_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    """The subscriber ends, even if nothing is written."""
    server, client = pair
    watch, subscriber = Watch(), Subscriber(1)
    watch.add(server, subscriber)
    watch.end_gone()
    assert not subscriber.has_ended()
    client.close()
    watch.end_gone()
    assert subscriber.has_ended()
    watch.discard(server, subscriber)
    watch.discard(server, subscriber)


def test_one_that_is_discarded_is_left_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    """The next socket with the same descriptor is not mistaken for the one that left."""
    server, client = pair
    watch, subscriber = Watch(), Subscriber(1)
    watch.add(server, subscriber)
    watch.discard(server, subscriber)
    client.close()
    watch.end_gone()
    watch.disconnect(subscriber)
    assert not subscriber.has_ended()


def test_one_that_is_discarded_after_an_overflow(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """It is disconnected, since its thread may be faster than the hub's loop."""
    server, client = pair
    watch, subscriber = Watch(), Subscriber(1)
    watch.add(server, subscriber)
    assert subscriber.offer(Batch((), b"x"))
    assert not subscriber.offer(Batch((), b"x"))
    watch.discard(server, subscriber)
    watch.disconnect(subscriber)
    client.settimeout(PATIENCE)
    assert client.recv(1) == b""


def test_one_whose_socket_the_server_has_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    """Nothing is kept of it when it is discarded."""

    class Seen(Subscriber):
        """A client that weak references support."""

    server, _ = pair
    watch, subscriber = Watch(), Seen(1)
    seen = weakref.ref(subscriber)
    watch.add(server, subscriber)
    server.close()
    watch.discard(server, subscriber)
    del subscriber
    assert seen() is None
    assert len(watch) == 0


def _close_its_descriptor(server: socket.socket) -> None:
    os.close(server.fileno())


@pytest.mark.parametrize("close", [socket.socket.close, _close_its_descriptor])
def test_one_whose_socket_is_closed_before(
    pair: tuple[socket.socket, socket.socket], close: Callable[[socket.socket], None]
) -> None:
    """A client that has gone before the server reads its stream has no stream."""
    server, _ = pair
    watch, subscriber = Watch(), Subscriber(1)
    close(server)
    watch.add(server, subscriber)
    assert subscriber.has_ended()
    watch.disconnect(subscriber)
    watch.disconnect_all()
    watch.discard(server, subscriber)
    assert len(watch) == 0
    server.detach()


def test_streams_that_the_garbage_collector_closes(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """It may run at any time, also while another client is watched, or found to be gone."""
    server, _ = pair
    watch = Watch()
    other, client = socket.socketpair()
    client.close()
    watched: list[Subscriber] = []

    def close() -> None:
        with contextlib.suppress(IndexError):
            watch.discard(other, watched.pop())

    def use() -> None:
        watch.add(other, gone := Subscriber(1))
        watched.append(gone)
        watch.add(server, subscriber := Subscriber(1))
        watch.end_gone()
        watch.disconnect_all()
        watch.discard(server, subscriber)
        close()

    with other:
        run_with_interruptions(use, close)
    assert len(watch) == 0


@pytest.mark.parametrize("all_", [True, False])
def test_a_client_is_disconnected(pair: tuple[socket.socket, socket.socket], all_: bool) -> None:
    """A server that is writing to it finds the connection closed."""
    server, client = pair
    watch, subscriber = Watch(), Subscriber(1)
    watch.add(server, subscriber)
    watch.disconnect_all() if all_ else watch.disconnect(subscriber)
    assert client.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        server.send(b"x")


def test_without_epoll_nothing_is_noticed_and_nothing_fails(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system without epoll, the keep-alives find clients that have left."""
    monkeypatch.setattr("flask_sse._system.greenlets.new_epoll", lambda: None)
    server, client = pair
    watch, subscriber = Watch(), Subscriber(1)
    assert watch.fileno() is None
    watch.add(server, subscriber)
    client.close()
    watch.end_gone()
    assert not subscriber.has_ended()
    watch.discard(server, subscriber)
