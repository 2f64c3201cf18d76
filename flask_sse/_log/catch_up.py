"""The clients that are behind in one log: their positions, and the next question.

Pure; nothing blocks.
"""

from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from flask_sse._log.page import Page
from flask_sse._log.position import ANY_EPOCH, Cursor, Entry, Mark, Position

L = TypeVar("L")


class Gap(NamedTuple):
    """The log does not continue where a client is."""

    reason: str


class Ahead(NamedTuple):
    """The log has continued without this process, has ended before it, or is another one."""

    cursor: Position


Found = Sequence[Entry] | Gap | Ahead
"""What a page says about a client's position; the entries end where the live clients are."""


class CatchUp(Generic[L]):
    """The clients that are behind; some of them wait for a page of the log."""

    __slots__ = ("_asked", "_cursors", "_lowest_first", "_waiting")

    def __init__(self) -> None:
        self._cursors: dict[L, Cursor] = {}
        # The first one has waited longest.
        self._waiting: dict[L, None] = {}
        # Those that waited when the question was asked that is in progress.
        self._asked: frozenset[L] | None = None
        self._lowest_first = True

    def __repr__(self) -> str:
        return f"<CatchUp {len(self._cursors)} behind, {len(self._waiting)} waiting for a page>"

    def __len__(self) -> int:
        return len(self._cursors)

    def __iter__(self) -> Iterator[L]:
        """Iterate over a snapshot of the clients."""
        return iter([*self._cursors])

    @property
    def waiting(self) -> Sequence[L]:
        """Those that wait for a page; the first one has waited longest."""
        return [*self._waiting]

    def add(self, client: L, cursor: Cursor) -> None:
        """Add a client that is behind, or note how far it has come."""
        self._cursors[client] = cursor

    def cursor(self, client: L) -> Cursor | None:
        """Return where a client is; `None` if it is not behind."""
        return self._cursors.get(client)

    def discard(self, client: L) -> None:
        """Forget a client, if it is known."""
        self._cursors.pop(client, None)
        self.stop_waiting(client)

    def wait(self, client: L) -> None:
        """Note that a client needs a page; a client that waits already keeps its turn."""
        self._waiting[client] = None

    def is_waiting(self, client: L) -> bool:
        """Whether a client waits for a page."""
        return client in self._waiting

    def stop_waiting(self, client: L) -> None:
        """Note that a client can't take a page now."""
        self._waiting.pop(client, None)

    def question(self, epoch: str) -> int | None:
        """Return the offset after which to read the log of this epoch, if a page is needed.

        Every second question is for the client that has waited longest: clients that keep
        arriving with old ids can't keep it waiting. The others are for the lowest position.
        Clients that read on from there catch up with those ahead, and share pages with them.
        """
        if not self._waiting or self._asked is not None:
            return None
        self._asked = frozenset(self._waiting)
        cursors = [self._cursors[client] for client in self._waiting]
        # Any page shows that a position is from another log. A mark needs the page at its offset.
        offsets = [
            cursor.offset
            for cursor in cursors
            if isinstance(cursor, Mark) or cursor.epoch in (epoch, ANY_EPOCH)
        ]
        offsets = offsets or [cursor.offset for cursor in cursors]
        self._lowest_first = not self._lowest_first
        return min(offsets) if self._lowest_first else offsets[0]

    def failed(self) -> None:
        """Note that Redis has not answered."""
        self._asked = None

    def answered(self, page: Page, position: Position) -> Iterator[tuple[L, Found]]:
        """Yield what a page says about the clients that waited.

        A client keeps its turn if the page can't tell, also if it may know more than an older
        page. Otherwise, if it wants another page, it is last. If the page shows which position a
        mark or :data:`ANY_EPOCH` stands for, the client has that from now on.

        :param position: Where the live clients are: they get the events after it all together.
        """
        asked, self._asked = self._asked or frozenset(), None
        for client in self.waiting:
            cursor = self._cursors.get(client)
            if cursor is None or (found := page.find(cursor)) is None:
                continue
            if isinstance(found, str) and client not in asked:
                continue
            self.stop_waiting(client)
            if isinstance(found, str):
                yield client, Gap(found)
                continue
            if isinstance(cursor, Mark) or cursor.epoch == ANY_EPOCH:
                cursor = self._cursors[client] = found[0].before if found else page.top
            if _is_ahead(cursor, position) or (not found and cursor != position):
                yield client, Ahead(cursor)
            else:
                yield client, found[: position.offset - cursor.offset]


def _is_ahead(cursor: Position, position: Position) -> bool:
    return (
        position.epoch != cursor.epoch
        or position.offset < cursor.offset
        or (position.offset == cursor.offset and position.nonce != cursor.nonce)
    )
