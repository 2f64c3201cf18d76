"""The clients that are alone in their bundles, and how a batch of one channel reaches them.

Most streams of several channels have one of their own, such as the user's. What their clients get
differs in the ids only. The loops here run in C, and they look at nothing of a client but the
parts of its id: the system calls displace everything else from the processor's caches, so each
object that is looked at would cost as much as a dozen lines of Python.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import repeat
from typing import Final, NamedTuple, Protocol

from flask_sse._hub import pieces
from flask_sse._hub.batch import Batch
from flask_sse._hub.connection import Connection
from flask_sse._hub.group import AT_ONCE
from flask_sse._hub.listener import Listener
from flask_sse._hub.pieces import Piece, Slot
from flask_sse._system import syscalls

_JOIN: Final = b"".join


class Owner(Protocol):
    """A bundle, as its channels know it."""

    parts: list[bytes]
    """The parts of its last id: the salt, and an entry for each channel with history."""
    keeps_ids: bool
    """Whether events on channels without history keep their ids."""

    def __iter__(self) -> Iterator[Listener]: ...

    @property
    def size(self) -> int:
        """How many live clients it has."""
        ...

    def count(self, batch: Batch, size: int, *, chunked: bool) -> None:
        """Note that its only client is sent *size* bytes."""
        ...

    def end(self, gone: Collection[Listener]) -> Sequence[Listener]:
        """Let the clients that have got a channel's end go on without it.

        :param gone: The clients that must be dropped anyhow.
        :return: the others that must be dropped, because their streams have ended.
        """
        ...

    def keep_rest(self, data: bytes, sent: int) -> Sequence[Listener]:
        """Keep what the socket of its only client has not accepted."""
        ...

    def send(
        self, slot: Slot, batch: Batch, some: Sequence[Piece], pause: Callable[[], None]
    ) -> Sequence[Listener]:
        """Send a batch to each live client; return those that must be dropped."""
        ...


class _Kind(NamedTuple):
    """What clients have in common whose data differs in the ids only."""

    slot: Slot
    keeps_ids: bool
    chunked: bool


class _Peers:
    """The clients of a kind; all dictionaries have the same order."""

    __slots__ = ("counted", "descriptors", "ids")

    def __init__(self) -> None:
        self.descriptors: dict[Owner, int] = {}
        self.ids: dict[Owner, list[bytes]] = {}
        """The parts of the last ids, which belong to the bundles."""
        self.counted: dict[Owner, None] = {}
        """Those whose events and bytes are counted."""


class Soles:
    """The only clients of bundles, if they are connections."""

    __slots__ = ("_kinds", "_number")

    def __init__(self) -> None:
        self._kinds: dict[_Kind, _Peers] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def add(self, owner: Owner, slot: Slot, connection: Connection) -> None:
        """Add the only client of a bundle."""
        peers = self._kinds.setdefault(_kind(owner, slot, connection), _Peers())
        peers.descriptors[owner] = connection.descriptor
        peers.ids[owner] = owner.parts
        if connection.is_counted:
            peers.counted[owner] = None
        self._number += 1

    def discard(self, owner: Owner, slot: Slot, connection: Connection) -> None:
        """Forget a client that has been added."""
        kind = _kind(owner, slot, connection)
        peers = self._kinds[kind]
        del peers.descriptors[owner], peers.ids[owner]
        peers.counted.pop(owner, None)
        if not peers.ids:
            del self._kinds[kind]
        self._number -= 1

    def send(
        self, batch: Batch, some: Sequence[Piece], pause: Callable[[], None]
    ) -> list[Listener]:
        """Send a batch to all; return the clients that must be dropped.

        :param some: Its pieces, on a channel with history.
        """
        lost: list[Listener] = []
        for kind, peers in [*self._kinds.items()]:
            # A client that does not take all leaves its bundle.
            owners = [*peers.ids]
            ids = [*peers.ids.values()]
            descriptors = [*peers.descriptors.values()]
            counted = {*peers.counted}
            for begin in range(0, len(owners), AT_ONCE):
                part = slice(begin, begin + AT_ONCE)
                if some:
                    datas = _frames(some, ids[part], kind)
                else:
                    shared = batch if kind.keeps_ids else pieces.without_ids(batch, kind.slot)
                    data = shared.chunk if kind.chunked else shared.frames
                    datas = [data] * len(ids[part])
                lengths = [*map(len, datas)]
                if counted:
                    for owner, length in zip(owners[part], lengths, strict=True):
                        if owner in counted:
                            owner.count(batch, length, chunked=kind.chunked)
                flags = repeat(syscalls.FLAGS)
                sent = [*map(syscalls.send, descriptors[part], datas, lengths, flags)]
                if sent != lengths:
                    for owner, data, number in zip(owners[part], datas, sent, strict=True):
                        if number != len(data):
                            lost += owner.keep_rest(data, number)
                pause()
        return lost


def _kind(owner: Owner, slot: Slot, connection: Connection) -> _Kind:
    return _Kind(slot, owner.keeps_ids, connection.chunked)


def _frames(some: Sequence[Piece], ids: Sequence[list[bytes]], kind: _Kind) -> list[bytes]:
    """Return the data for each client.

    :param ids: The parts of each client's last id, in which one is updated.
    """
    columns, text = _columns(some, ids, kind.slot)
    if not columns:
        return [b"%x\r\n%b\r\n" % (len(text), text) if kind.chunked and text else text] * len(ids)
    joined = [column for _, column in columns]
    texts = [text for text, _ in columns]
    firsts: Iterator[bytes] = repeat(texts[0])
    if kind.chunked:
        sizes = (
            [*map(len, joined[0])] if len(joined) == 1 else [*map(_size, zip(*joined, strict=True))]
        )
        fixed = sum(map(len, texts)) + len(text)
        # There are few sizes: an id grows when an offset has one more digit.
        heads = {size: b"%x\r\n%b" % (fixed + size, texts[0]) for size in {*sizes}}
        firsts = map(heads.__getitem__, sizes)
        text += b"\r\n"
    others = [part for column in columns[1:] for part in (repeat(column[0]), column[1])]
    return [*map(_JOIN, zip(firsts, joined[0], *others, repeat(text)))]


def _columns(
    some: Sequence[Piece], ids: Sequence[list[bytes]], slot: Slot
) -> tuple[list[tuple[bytes, list[bytes]]], bytes]:
    """Return each text that comes before an id, with the ids of all clients, and the last text."""
    columns: list[tuple[bytes, list[bytes]]] = []
    text = b""
    for head, number, tail, _ in some:
        if number is not None:
            entry = slot.key + number
            for parts in ids:
                parts[slot.place] = entry
        if number is not None and head:
            columns.append((text + head, [*map(b"-".join, ids)]))
            text = tail
        elif number is None:
            text += head
    return columns, text


def _size(parts: Sequence[bytes]) -> int:
    return sum(map(len, parts))
