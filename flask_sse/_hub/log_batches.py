"""What the listeners of a channel with history get: its events, and the two events about its log.

Only the hub's loop uses it. Nothing here has a state, and nothing blocks.
"""

import json
from collections.abc import Sequence

from flask_sse._event import channel_name
from flask_sse._hub.batch import Batch, Content, Opening, Reset
from flask_sse._log.decoding import Event
from flask_sse._log.position import Cursor, Entry, Position


def from_events(events: Sequence[Event]) -> Batch:
    """Return events as a batch, without payloads for those that can't be decoded.

    If the last one is the channel's end, it is not a message either.
    """
    payloads = [event.payload for event in events if event.payload is not None]
    batch = Batch(payloads, b"".join([event.frame for event in events]), events)
    if batch.end is not None:
        payloads.pop()
    return batch


def opening(name: bytes, cursor: Cursor, *, recovered: bool) -> Batch:
    """Return ``sse.open``, with which a stream begins.

    :param cursor: Where the stream continues; a client that reconnects resumes from there.
    :param recovered: Whether the client has missed nothing.
    """
    frame = _frame("sse.open", name, "recovered", recovered, cursor)
    return Batch((), frame, [Opening(cursor, recovered)])


def opening_with_reset(name: bytes, cursor: Cursor, reason: str, position: Position) -> Batch:
    """Return ``sse.open`` and ``sse.reset`` for a client that has missed something.

    :param cursor: Where the client is, as it has said.
    """
    first, second = opening(name, cursor, recovered=False), reset(name, reason, position)
    return Batch((), first.frames + second.frames, [*first.contents, *second.contents])


def reset(name: bytes, reason: str, position: Position, newest: Sequence[Entry] = ()) -> Batch:
    """Return ``sse.reset``, which tells clients that they may have missed events.

    :param newest: The events that follow it at once.
    """
    events = from_events(newest)
    frame = _frame("sse.reset", name, "reason", reason, position)
    contents: list[Content] = [Reset(position, frame), *newest]
    return Batch(events.payloads, frame + events.frames, contents)


def _frame(kind: str, name: bytes, key: str, value: object, cursor: Cursor) -> bytes:
    data = json.dumps({"channel": channel_name.to_text(name), key: value})
    return f"event:{kind}\ndata:{data}\nid:{cursor}\n\n".encode()
