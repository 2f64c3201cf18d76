"""The data that waits until a connection's socket accepts it.

Nothing here touches the socket: the connection asks which bytes come next, and says how many of
them the socket has accepted. Only the hub's loop uses it.
"""

from collections import deque
from itertools import islice
from typing import Final

_JOIN_UP_TO: Final = 1 << 16
_MOST_PARTS: Final = 512


class Outbox:
    """The data that waits for one client; there is an outbox only while data waits.

    :param data: The first part, of which the socket has not accepted all bytes.
    :param accepted: How many of its bytes the socket has accepted.
    """

    __slots__ = ("_accepted", "_parts", "size")

    def __init__(self, data: bytes, accepted: int) -> None:
        self.size = len(data) - accepted
        """How many bytes wait."""
        # A large part is not copied: it may wait for many clients.
        self._parts = deque([data])
        # Of the first part.
        self._accepted = accepted

    def __bool__(self) -> bool:
        """Whether there is anything left to send."""
        return bool(self._parts)

    def offer(self, data: bytes, limit: int) -> bool:
        """Add data; return `False` if then more than *limit* bytes would wait."""
        if self.size + len(data) > limit:
            return False
        self.add(data)
        return True

    def add(self, data: bytes) -> None:
        """Add data, regardless of the limit."""
        self._parts.append(data)
        self.size += len(data)

    def next_part(self) -> tuple[bytes, int]:
        """Return the data to send next, and the index of its first byte to send."""
        if len(self._parts) > 1 and len(self._parts[0]) - self._accepted < _JOIN_UP_TO:
            self._join_parts()
        return self._parts[0], self._accepted

    def advance(self, number: int) -> None:
        """Note that the socket has accepted *number* bytes of the next part."""
        self.size -= number
        self._accepted += number
        if self._accepted == len(self._parts[0]):
            self._parts.popleft()
            self._accepted = 0

    def _join_parts(self) -> None:
        """Join small parts to one that can be sent at once: one call per part is slow."""
        parts = [self._parts[0][self._accepted :]]
        size = len(parts[0])
        for part in islice(self._parts, 1, _MOST_PARTS):
            size += len(part)
            if size > _JOIN_UP_TO:
                break
            parts.append(part)
        if len(parts) > 1:
            for _ in parts:
                self._parts.popleft()
            self._parts.appendleft(b"".join(parts))
            self._accepted = 0
