"""The bundles that a channel belongs to, and how a batch reaches them.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.
"""

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from flask_sse._hub import pieces
from flask_sse._hub.batch import Batch
from flask_sse._hub.connection import Connection
from flask_sse._hub.listener import Listener
from flask_sse._hub.pieces import Slot
from flask_sse._hub.soles import Owner, Soles


class Part(NamedTuple):
    """The place of a channel in a bundle."""

    owner: Owner
    slot: Slot


class Parts:
    """The parts that one channel has in bundles.

    :param is_logged: Whether the channel has history.
    """

    __slots__ = ("_is_logged", "_parts", "_shared", "_soles", "reached")

    def __init__(self, *, is_logged: bool) -> None:
        self._is_logged = is_logged
        self._parts: dict[Part, None] = {}
        # Those whose bundles have several live clients, or one that is not a connection.
        self._shared: dict[Part, None] = {}
        self._soles = Soles()
        self.reached = 0
        """How many clients the last batch was for."""

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, part: Part) -> None:
        """Add a part."""
        self._parts[part] = None

    def discard(self, part: Part) -> None:
        """Forget a part, if it is known, whose bundle has no live clients."""
        self._parts.pop(part, None)

    def share(self, part: Part, *, is_shared: bool) -> None:
        """Say whether the bundle gets each batch, for several clients or a subscriber."""
        if is_shared:
            self._shared[part] = None
        else:
            self._shared.pop(part, None)

    def add_sole(self, part: Part, connection: Connection) -> None:
        """Add the only live client of a bundle."""
        self._soles.add(*part, connection)

    def discard_sole(self, part: Part, connection: Connection) -> None:
        """Forget a client that is no longer the only one."""
        self._soles.discard(*part, connection)

    def clients(self) -> Iterable[Listener]:
        """Yield the clients of all bundles."""
        for part in [*self._parts]:
            yield from part.owner

    def end(self, gone: Collection[Listener]) -> list[Listener]:
        """Note that all bundles have got the channel's end; return the clients to be dropped."""
        return [one for owner, _ in [*self._parts] for one in owner.end(gone)]

    def send(self, batch: Batch, pause: Callable[[], None]) -> list[Listener]:
        """Send a batch to all bundles; return the clients that must be dropped."""
        some = pieces.cut(batch) if self._is_logged else ()
        self.reached = len(self._soles)
        lost = self._soles.send(batch, some, pause)
        for owner, slot in [*self._shared]:
            self.reached += owner.size
            lost += owner.send(slot, batch, some, pause)
        return lost
