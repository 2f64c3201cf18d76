"""Clients that are alone in their bundles: each gets its own ids, however the data is made."""

import random
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import pytest
from flask import Flask

from flask_sse._callbacks.receivers import Notices
from flask_sse._callbacks.stream_signals import Visit
from flask_sse._hub import pieces
from flask_sse._hub.batch import Batch
from flask_sse._hub.connection import Connection, Terms
from flask_sse._hub.group import AT_ONCE
from flask_sse._hub.listener import Listener
from flask_sse._hub.pieces import Piece, Slot
from flask_sse._hub.soles import Soles

SLOT: Final = Slot(b"news", 2, b"kkkkk")
EVENT: Final = Piece(b"data:x\nid:", b"Bccccccc", b"\n\n", b"{}")
FOREIGN: Final = Piece(b"data:foreign\n\n", None, b"", b"{}")
UNDECODABLE: Final = Piece(b"", b"Cccccccc", b"", None)
END: Final = Piece(b"event:sse.end\ndata:{}\nid:", b"", b"\n\n", None)
LATER: Final = Piece(b"data:yy\ndata:zz\nid:", b"BAAccccccc", b"\nretry:5\n\n", b"{}")
WITHOUT_IDS: Final = Batch([b"{}"], b"data:x\nid:7\n\n")


class Owner:
    """A bundle with one client, and what this client has received."""

    keeps_ids = False

    def __init__(self, parts: Sequence[bytes], *, chunked: bool, visit: Visit | None) -> None:
        self.parts = [*parts]
        self.counted: list[int] = []
        self.rests: list[int] = []
        server, self.client = socket.socketpair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server.setblocking(False)
        self.client.setblocking(False)
        terms = Terms(b":\n", lambda: b"", 1 << 20, lambda _: None)
        self.connection = Connection(
            server.detach(), b"", terms, chunked=chunked, callbacks=[], visit=visit
        )

    def __iter__(self) -> Iterator[Listener]:
        return iter([self.connection])

    @property
    def size(self) -> int:
        """One client."""
        return 1

    def count(self, batch: Batch, size: int, *, chunked: bool) -> None:
        """Note a size."""
        assert chunked == self.connection.chunked
        self.counted.append(size)

    def end(self, gone: Collection[Listener]) -> Sequence[Listener]:
        """Do nothing."""
        return ()

    def keep_rest(self, data: bytes, sent: int) -> Sequence[Listener]:
        """Note how much was not sent."""
        self.rests.append(len(data) - max(sent, 0))
        return [self.connection]

    def send(
        self, slot: Slot, batch: Batch, some: Sequence[Piece], pause: Callable[[], None]
    ) -> Sequence[Listener]:
        """Fail, since only others are sent to in this way."""
        raise NotImplementedError

    def read(self) -> bytes:
        """Return what has arrived."""
        try:
            return self.client.recv(1 << 16)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
        self.client.close()


class Lab:
    """Owners that are closed after the test."""

    def __init__(self) -> None:
        self.soles = Soles()
        self.owners: list[Owner] = []
        self.pauses = 0

    def add(
        self, parts: Sequence[bytes], *, chunked: bool = False, visit: Visit | None = None
    ) -> Owner:
        """Add a bundle."""
        owner = Owner(parts, chunked=chunked, visit=visit)
        self.owners.append(owner)
        self.soles.add(owner, SLOT, owner.connection)
        return owner

    def send(self, *some: Piece, batch: Batch = WITHOUT_IDS) -> list[Listener]:
        """Send to all."""
        return self.soles.send(batch, some, self.pause)

    def pause(self) -> None:
        """Count the pauses."""
        self.pauses += 1


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Return a place for owners."""
    lab = Lab()
    yield lab
    for owner in lab.owners:
        owner.close()


def expected(owner: Owner, some: Sequence[Piece], before: Sequence[bytes]) -> bytes:
    """Return what one client gets if its data is made for it alone."""
    frames = pieces.join(some, [*before], SLOT)
    if owner.connection.chunked and frames:
        return b"%x\r\n%b\r\n" % (len(frames), frames)
    return frames


@pytest.mark.parametrize(
    "some",
    [
        [EVENT],
        [FOREIGN],
        [UNDECODABLE],
        [END],
        [EVENT, LATER],
        [EVENT, FOREIGN],
        [FOREIGN, EVENT],
        [FOREIGN, EVENT, FOREIGN, UNDECODABLE, LATER, FOREIGN],
        [EVENT, END],
        [EVENT, UNDECODABLE],
        [EVENT] * 20,
    ],
)
def test_own_ids(lab: Lab, some: Sequence[Piece]) -> None:
    """Each client gets the frames that name its own positions, and its id is kept for later."""
    chance = random.Random(17)
    before: list[list[bytes]] = []
    for number in range(40):
        own = [b"a" * chance.randint(5, 20), b"kkkkk", b"b" * chance.choice([5, 13, 14])]
        before.append([b"1", *own])
        lab.add(before[-1], chunked=number % 3 == 0)
    assert len(lab.soles) == 40
    assert lab.send(*some) == []
    for owner, parts in zip(lab.owners, before, strict=True):
        assert owner.read() == expected(owner, some, parts)
        pieces.join(some, parts, SLOT)
        assert owner.parts == parts


@pytest.mark.parametrize("keeps_ids", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_without_history(lab: Lab, keeps_ids: bool, chunked: bool) -> None:
    """Events keep their ids only in streams without any history."""
    owner = Owner([b"1"], chunked=chunked, visit=None)
    owner.keeps_ids = keeps_ids
    lab.owners.append(owner)
    lab.soles.add(owner, SLOT, owner.connection)
    lab.send()
    frames = WITHOUT_IDS.frames if keeps_ids else b"data:x\n\n"
    assert owner.read() == (b"%x\r\n%b\r\n" % (len(frames), frames) if chunked else frames)


def test_many_clients(lab: Lab) -> None:
    """Others may run in between."""
    for number in range(AT_ONCE * 2 + 1):
        lab.add([b"1", b"%d" % number, b"kkkkk"])
    lab.send(EVENT)
    assert lab.pauses == 3
    for number, owner in enumerate(lab.owners):
        assert owner.read() == b"data:x\nid:1-%d-kkkkkBccccccc\n\n" % number


def test_clients_that_leave(lab: Lab) -> None:
    """They get nothing more."""
    first, second = lab.add([b"1", b"a", b"kkkkk"]), lab.add([b"1", b"b", b"kkkkk"], chunked=True)
    lab.soles.discard(first, SLOT, first.connection)
    lab.send(EVENT)
    assert (first.read(), len(lab.soles)) == (b"", 1)
    assert second.read()
    lab.soles.discard(second, SLOT, second.connection)
    assert lab.send(EVENT) == []
    assert len(lab.soles) == 0


def test_a_client_that_does_not_read(lab: Lab) -> None:
    """The rest is kept, and the others get everything."""
    slow, other = lab.add([b"1", b"a", b"kkkkk"]), lab.add([b"1", b"b", b"kkkkk"])
    lost: list[Listener] = []
    while not slow.rests:
        lost = lab.send(EVENT._replace(head=b"data:%b\nid:" % (b"x" * 1000)))
        assert other.read()
    assert lost == [slow.connection]
    assert slow.rests[0] > 0
    assert not other.rests


def test_only_those_are_counted_whose_numbers_are_asked_for(lab: Lab) -> None:
    """Counting would take as long as everything else together."""
    visit = Visit(Notices(Flask("tests")), SLOT.name, None)
    counted = lab.add([b"1", b"a", b"kkkkk"], chunked=True, visit=visit)
    other = lab.add([b"1", b"a", b"kkkkk"], chunked=True)
    lab.send(EVENT)
    assert counted.counted == [len(counted.read())]
    assert other.counted == []
