"""Parses data from Redis, in pieces of any size: version 2 of its protocol, RESP.

redis-py's parsers wait for the rest of an answer, with calls that let other greenlets run in
between: under gevent with busy views, that took 0.3 s per event. Pure; for one thread at a
time. The format: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from collections.abc import Iterator
from typing import Final

import redis

Reply = list["Reply"] | bytes | int | None | redis.ResponseError
"""A reply from Redis. Errors are returned, not raised: each answers one command of several."""

_END: Final = b"\r\n"


class Reader:
    """Parses replies from bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        # The minimum size of the reply at the beginning of the buffer, in bytes.
        self._needed = 1

    def feed(self, data: bytes) -> None:
        """Add received data."""
        self._buffer += data

    def replies(self) -> Iterator[Reply]:
        """Yield the replies that are complete.

        :raises redis.InvalidResponse: if the data is not RESP; nothing more can be read then.
        """
        while len(self._buffer) >= self._needed:
            try:
                reply, end = self._parse(0)
            except _IncompleteError as incomplete:
                self._needed = incomplete.needed
                return
            del self._buffer[:end]
            self._needed = 1
            yield reply

    def _parse(self, start: int) -> tuple[Reply, int]:
        """Return the reply that begins at *start*, and where it ends."""
        end = self._buffer.find(_END, start)
        if end < 0:
            raise _IncompleteError(len(self._buffer) + 1)
        kind, line = bytes(self._buffer[start : start + 1]), bytes(self._buffer[start + 1 : end])
        end += len(_END)
        if kind == b"$":
            return self._parse_bulk(_to_int(line), end)
        if kind == b"*":
            return self._parse_array(_to_int(line), end)
        if kind == b":":
            return _to_int(line), end
        if kind == b"+":
            return line, end
        if kind == b"-":
            return redis.ResponseError(line.decode(errors="replace")), end
        raise redis.InvalidResponse(f"this is not RESP: {kind + line!r:.100}")

    def _parse_bulk(self, size: int, start: int) -> tuple[Reply, int]:
        if size < 0:
            return None, start
        end = start + size
        if len(self._buffer) < end + len(_END):
            raise _IncompleteError(end + len(_END))
        return bytes(self._buffer[start:end]), end + len(_END)

    def _parse_array(self, size: int, position: int) -> tuple[Reply, int]:
        if size < 0:
            return None, position
        parts: list[Reply] = []
        for _ in range(size):
            part, position = self._parse(position)
            parts.append(part)
        return parts, position


class _IncompleteError(Exception):
    def __init__(self, needed: int) -> None:
        self.needed = needed


def _to_int(line: bytes) -> int:
    try:
        return int(line)
    except ValueError:
        raise redis.InvalidResponse(f"this is not a number of RESP: {line!r:.100}") from None
