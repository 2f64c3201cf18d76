"""The times at which streams must end.

Only the hub's loop uses it. It reads no clock, and nothing blocks.
"""

import heapq
from itertools import count
from typing import Final, NamedTuple

from flask_sse._hub.listener import Client

_SLACK: Final = 64
"""How many deadlines may be kept that no longer count, in addition to as many as do count."""


class Deadline(NamedTuple):
    """The time at which one stream must end."""

    at: float
    number: int
    """Distinguishes deadlines of the same time."""
    client: Client
    reason: str | None
    """Why the stream ends; `None` if it has ended, and what waits for its client is dropped."""


class Deadlines:
    """The streams that have a deadline, each with its earliest one."""

    def __init__(self) -> None:
        self._earliest: dict[Client, Deadline] = {}
        # It also has deadlines that no longer count: to find and remove one would take too long.
        self._heap: list[Deadline] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._earliest)

    def add(self, at: float, client: Client, reason: str | None) -> None:
        """Add a deadline; it has no effect if the stream has an earlier one."""
        known = self._earliest.get(client)
        if known is not None and known.at <= at:
            return
        deadline = Deadline(at, next(self._numbers), client, reason)
        self._earliest[client] = deadline
        heapq.heappush(self._heap, deadline)
        self._compact()

    def discard(self, client: Client) -> None:
        """Forget a stream, if it is known."""
        if self._earliest.pop(client, None) is not None:
            self._compact()

    def is_due(self, now: float) -> bool:
        """Whether :meth:`take` may have something to return."""
        return bool(self._heap) and self._heap[0].at <= now

    def take(self, now: float, most: int) -> list[Deadline]:
        """Return the deadlines that have passed, the earliest first, and forget them.

        :param most: How many to return at most; the others are left for the next call.
        """
        taken: list[Deadline] = []
        while self.is_due(now) and len(taken) < most:
            deadline = heapq.heappop(self._heap)
            if self._earliest.get(deadline.client) is deadline:
                del self._earliest[deadline.client]
                taken.append(deadline)
        return taken

    def _compact(self) -> None:
        """Forget the deadlines that no longer count, once they are the majority."""
        if len(self._heap) > 2 * len(self._earliest) + _SLACK:
            self._heap = [*self._earliest.values()]
            heapq.heapify(self._heap)
