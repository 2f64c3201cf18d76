"""The bundles that a channel belongs to, and how a batch reaches them.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import NamedTuple, Protocol

from flask_sse._hub import pieces
from flask_sse._hub.batch import Batch
from flask_sse._hub.connection import Connection
from flask_sse._hub.group import AT_ONCE
from flask_sse._hub.listener import Listener
from flask_sse._hub.pieces import Piece, Slot
from flask_sse._system import syscalls


class Owner(Protocol):
    """A bundle, as its parts know it."""

    parts: list[bytes]
    """The parts of its last id: the salt, and an entry for each channel with history."""
    sole: Connection | None
    """Its only live client, if that is a connection."""
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


class Part(NamedTuple):
    """The place of a channel in a bundle."""

    owner: Owner
    slot: Slot


class Parts:
    """The parts that one channel has in bundles.

    :param is_logged: Whether the channel has history.
    """

    __slots__ = ("_is_logged", "_parts", "reached")

    def __init__(self, *, is_logged: bool) -> None:
        self._is_logged = is_logged
        self._parts: dict[Part, None] = {}
        self.reached = 0
        """How many clients the last batch was for."""

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, part: Part) -> None:
        """Add a part."""
        self._parts[part] = None

    def discard(self, part: Part) -> None:
        """Forget a part, if it is known."""
        self._parts.pop(part, None)

    def clients(self) -> Iterable[Listener]:
        """Yield the clients of all bundles."""
        for part in [*self._parts]:
            yield from part.owner

    def end(self, gone: Collection[Listener]) -> list[Listener]:
        """Note that all bundles have got the channel's end; return the clients to be dropped."""
        return [one for owner, _ in [*self._parts] for one in owner.end(gone)]

    def send(self, batch: Batch, pause: Callable[[], None]) -> list[Listener]:
        """Send a batch to all bundles; return the clients that must be dropped.

        Most bundles have one client. These are sent to together: the loop of `map` runs in C.
        """
        self.reached = 0
        lost: list[Listener] = []
        some = pieces.cut(batch) if self._is_logged else ()
        parts = iter([*self._parts])
        while slice_ := [*islice(parts, AT_ONCE)]:
            owners: list[Owner] = []
            descriptors: list[int] = []
            datas: list[bytes] = []
            bare: Batch | None = None
            for owner, slot in slice_:
                connection = owner.sole
                if connection is None:
                    self.reached += owner.size
                    lost += owner.send(slot, batch, some, pause)
                    continue
                if some:
                    data = pieces.join(some, owner.parts, slot)
                    if connection.chunked and data:
                        data = b"%x\r\n%b\r\n" % (len(data), data)
                else:
                    bare = bare or pieces.without_ids(batch, slot)
                    shared = batch if owner.keeps_ids else bare
                    data = shared.chunk if connection.chunked else shared.frames
                owner.count(batch, len(data), chunked=connection.chunked)
                owners.append(owner)
                descriptors.append(connection.descriptor)
                datas.append(data)
            self.reached += len(owners)
            lengths = [*map(len, datas)]
            sent = [*map(syscalls.send, descriptors, datas, lengths, repeat(syscalls.FLAGS))]
            if sent != lengths:
                for owner, data, number in zip(owners, datas, sent, strict=True):
                    if number != len(data):
                        lost += owner.keep_rest(data, number)
            pause()
        return lost
