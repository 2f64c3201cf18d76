"""What a client received, taken apart: chunked framing, frames, the numbers of the events.

Each byte is looked at, yet not once for each client: all clients of a channel are sent the same
bytes, so what was read is compared with what another client read before (a ``memcmp``), and only
what is new is taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .events import read_event

_FIELDS: Final = (b"", b"data", b"event", b"id", b"retry")
_REMEMBERED: Final = 512


class GarbledError(Exception):
    """The bytes are no chunked framing, no event stream, or an event that nobody published."""


ENDED: Final = -1


class Rest(NamedTuple):
    """What the reads so far left unfinished.

    ``due`` is what is still to come of the open chunk, its closing line end included; ``None``
    where the body is not chunked, :data:`ENDED` after the final chunk.
    """

    due: int | None
    framing: bytes
    frame: bytes


CHUNKED: Final = Rest(0, b"", b"")
PLAIN: Final = Rest(None, b"", b"")


class Run(NamedTuple):
    """Events of one channel whose numbers follow each other, both ends included."""

    channel: int
    first: int
    last: int


class Parsed(NamedTuple):
    """What one read carried, and what it left unfinished."""

    rest: Rest
    runs: tuple[Run, ...]


class StreamParser:
    """Takes reads apart and remembers the latest ones."""

    def __init__(self) -> None:
        """Start with nothing remembered."""
        self._rest = CHUNKED
        self._data = b""
        self._parsed = Parsed(CHUNKED, ())
        self._known: dict[tuple[Rest, bytes], Parsed] = {}

    def parse(self, rest: Rest, data: bytes) -> Parsed:
        """Take ``data`` apart, which follows upon ``rest``."""
        if rest is self._rest and data == self._data:
            return self._parsed
        parsed = self._known.get((rest, data))
        if parsed is None:
            parsed = parse(rest, data)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[rest, data] = parsed
        self._rest, self._data, self._parsed = rest, data, parsed
        return parsed


def parse(rest: Rest, data: bytes) -> Parsed:
    """Take ``data`` apart, which follows upon ``rest``."""
    if rest.due is None:
        body, due, framing = data, None, b""
    else:
        body, due, framing = _dechunk(rest.due, rest.framing + data)
    # A CR at the very end stays as it is until its LF has come.
    text = (rest.frame + body).replace(b"\r\n", b"\n")
    *frames, frame = text.split(b"\n\n")
    left = Rest(due, framing, frame)
    for common in (CHUNKED, PLAIN):
        # One object for the state in which nearly every read begins and ends: `is` finds it.
        left = common if left == common else left
    return Parsed(left, tuple(_runs(frames)))


def _dechunk(due: int, data: bytes) -> tuple[bytes, int, bytes]:
    """Return the body in ``data``, what is still due of the last chunk, an unfinished size line."""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        if due == 0:
            end = data.find(b"\r\n", at)
            if end < 0:
                return b"".join(parts), 0, data[at:]
            size = _chunk_size(data[at:end])
            if size == 0:
                return b"".join(parts), ENDED, b""
            due = size + 2
            at = end + 2
            continue
        piece = data[at : at + due - 2] if due > 2 else data[at : at + due]
        if due > 2:
            parts.append(piece)
        elif not b"\r\n"[2 - due :].startswith(piece):
            raise GarbledError(f"a chunk is not closed: {data[at : at + 40]!r}")
        at += len(piece)
        due -= len(piece)
    return b"".join(parts), due, b""


def _chunk_size(line: bytes) -> int:
    """Return the size that a chunk's first line gives."""
    try:
        return int(line.split(b";")[0], 16)
    except ValueError:
        raise GarbledError(f"no chunk size: {line[:40]!r}") from None


def _runs(frames: list[bytes]) -> Iterator[Run]:
    """Yield the events of ``frames``, those that follow each other as one run."""
    run: Run | None = None
    for frame in frames:
        data = _frame_data(frame)
        if data is None:
            continue
        event = read_event(data)
        if event is None:
            raise GarbledError(f"nobody published this: {data[:120]!r}")
        channel, number = event
        if run is not None and run.channel == channel and run.last + 1 == number:
            run = run._replace(last=number)
            continue
        if run is not None:
            yield run
        run = Run(channel, number, number)
    if run is not None:
        yield run


def _frame_data(frame: bytes) -> bytes | None:
    """Return the data of one frame, ``None`` where it has none (a comment, a ``retry:`` alone)."""
    lines: list[bytes] = []
    for line in filter(None, frame.split(b"\n")):
        field, _, value = line.partition(b":")
        if field not in _FIELDS:
            raise GarbledError(f"no field of an event stream: {line[:120]!r}")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None
