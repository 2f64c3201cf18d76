"""Parses data from Redis, in pieces of any size: version 2 of its protocol, RESP.

redis-py's parsers wait for the rest of an answer, with calls that let other greenlets run in
between: under gevent with busy views, that took 0.3 s per event. Pure; for one thread at a
time. The format: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from typing import Final

import redis

Reply = list["Reply"] | bytes | int | None | redis.ResponseError | redis.InvalidResponse
"""A reply from Redis. Errors are returned, not raised: each answers one command of several."""

_END: Final = b"\r\n"
_EVENT: Final = b"*3\r\n$7\r\nmessage\r\n"
_SHARDED_EVENT: Final = b"*3\r\n$8\r\nsmessage\r\n"


class Reader:
    """Parses replies from bytes."""

    def __init__(self) -> None:
        # What is left of a reply whose rest has not arrived, and its minimum size in bytes.
        self._rest = bytearray()
        self._needed = 1

    def feed(self, data: bytes) -> list[Reply]:
        """Return the replies that this data completes.

        If the data is not RESP, the last one is an error, and nothing more can be read.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        replies: list[Reply] = []
        start = 0
        try:
            while start < len(data):
                if data.startswith(_EVENT, start):
                    # Nearly all replies begin like this.
                    channel, end = _parse(data, start + len(_EVENT))
                    payload, end = _parse(data, end)
                    replies.append([b"message", channel, payload])
                elif data.startswith(_SHARDED_EVENT, start):
                    channel, end = _parse(data, start + len(_SHARDED_EVENT))
                    payload, end = _parse(data, end)
                    replies.append([b"smessage", channel, payload])
                else:
                    reply, end = _parse(data, start)
                    replies.append(reply)
                start = end
        except _IncompleteError as incomplete:
            self._rest += memoryview(data)[start:]
            self._needed = incomplete.needed - start
        except redis.InvalidResponse as error:
            replies.append(error)
        return replies


def _parse(data: bytes, start: int) -> tuple[Reply, int]:
    """Return the reply that begins at *start*, and where it ends."""
    end = data.find(_END, start)
    if end < 0:
        raise _IncompleteError(len(data) + 1)
    kind, line = data[start : start + 1], data[start + 1 : end]
    end += 2
    if kind == b"$":
        size = _to_int(line)
        if size < 0:
            return None, end
        start, end = end, end + size
        if len(data) < end + 2:
            raise _IncompleteError(end + 2)
        return data[start:end], end + 2
    if kind == b"*":
        return _parse_array(data, _to_int(line), end)
    if kind == b":":
        return _to_int(line), end
    if kind == b"+":
        return line, end
    if kind == b"-":
        return redis.ResponseError(line.decode(errors="replace")), end
    raise redis.InvalidResponse(f"this is not RESP: {kind + line!r:.100}")


def _parse_array(data: bytes, size: int, position: int) -> tuple[Reply, int]:
    if size < 0:
        return None, position
    parts: list[Reply] = []
    for _ in range(size):
        part, position = _parse(data, position)
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
