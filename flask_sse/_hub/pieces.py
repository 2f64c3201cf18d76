"""The frames of a batch, cut where the id of each event belongs.

In a stream of several channels, the ids are different, and everything else in a frame is the same.
Only the hub's loop uses it. Nothing blocks.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from flask_sse._hub.batch import Batch, Opening, Reset
from flask_sse._log.composite_id import value
from flask_sse._log.position import Entry

# Data has a field name before it in each line, so it can't be mistaken for an id.
_ID: Final = re.compile(rb"^id:.*\n", re.MULTILINE)


class Piece(NamedTuple):
    """One event."""

    head: bytes
    """The frame up to the id."""
    value: bytes | None
    """What follows the channel's key in the id; `None` if the event has no id."""
    tail: bytes
    """The frame after the id."""
    payload: bytes | None
    """The event as Redis carries it; `None` if there is none."""


class Slot(NamedTuple):
    """The place of a channel in the ids of a stream."""

    name: bytes
    place: int
    """Where its entry is among the parts of an id, or 0 if the channel has no history."""
    key: bytes
    """What its entry begins with."""


class StampedBatch(Batch):
    """A batch of one channel, as a stream of several channels gets it.

    :param slot: The channel.
    :param ids: The ids of the payloads; `None` stands for no id.
    """

    __slots__ = ("ids", "slot")

    def __init__(
        self, slot: Slot, payloads: Sequence[bytes], ids: Sequence[bytes | None], frames: bytes
    ) -> None:
        super().__init__(payloads, frames)
        self.slot = slot
        self.ids = ids


def cut(batch: Batch) -> Sequence[Piece]:
    """Return the pieces of a batch on a channel with history, except for its opening."""
    pieces: list[Piece] = []
    for content in batch.contents:
        if isinstance(content, Opening):
            continue
        payload = None if isinstance(content, Reset) or content is batch.end else content.payload
        if isinstance(content, (Entry, Reset)):
            head, mark, rest = content.frame.rpartition(b"\nid:")
            # An event that can't be decoded has no frame.
            tail = rest[rest.find(b"\n") :] if mark else b""
            # The key alone says that the channel has ended.
            number = b"" if content is batch.end else value(content.position)
            pieces.append(Piece(head + mark, number, tail, payload))
        else:
            pieces.append(Piece(content.frame, None, b"", payload))
    return pieces


def join(pieces: Sequence[Piece], parts: list[bytes], slot: Slot) -> bytes:
    """Return the frames of a stream.

    :param parts: The parts of its last id: the salt and the entries. One is updated.
    """
    place, key = slot.place, slot.key
    if len(pieces) == 1:
        # Most batches have one event.
        head, number, tail, _ = pieces[0]
        if number is not None and head:
            parts[place] = key + number
            return b"%b%b%b" % (head, b"-".join(parts), tail)
    frames: list[bytes] = []
    for head, number, tail, _ in pieces:
        if number is None:
            frames.append(head)
            continue
        parts[place] = key + number
        if head:
            frames += (head, b"-".join(parts), tail)
    return b"".join(frames)


def stamp(pieces: Sequence[Piece], parts: list[bytes], slot: Slot) -> StampedBatch:
    """Return the same as a batch, which also says what its ids are."""
    payloads: list[bytes] = []
    ids: list[bytes | None] = []
    frames: list[bytes] = []
    for piece in pieces:
        frames.append(join([piece], parts, slot))
        if piece.payload is not None:
            payloads.append(piece.payload)
            ids.append(None if piece.value is None else b"-".join(parts))
    return StampedBatch(slot, payloads, ids, b"".join(frames))


def without_ids(batch: Batch, slot: Slot) -> StampedBatch:
    """Return a batch of a channel without history, whose ids would replace those from logs."""
    frames = batch.frames
    if b"\nid:" in frames:
        frames = _ID.sub(b"", frames)
    return StampedBatch(slot, batch.payloads, [None] * len(batch.payloads), frames)
