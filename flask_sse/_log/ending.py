"""The event that ends a channel: how Redis carries it, and how it is recognized.

Pure; nothing blocks.
"""

import json
import re
from typing import Final

from flask_sse._event import channel_name
from flask_sse._log.position import END, Entry, Position

TYPE: Final = "sse.end"
"""The type of the event. An application may publish events of this type, which end nothing."""

_TAIL: Final = re.compile(rb'", "ends_after": ([0-9]{1,14})\}\Z')
_LONGEST: Final = 40


def split_payload(name: bytes) -> tuple[bytes, bytes]:
    """Return the event that ends a channel, in two parts.

    Redis puts the id between them, and the offset of the end before in place of the 0.
    """
    stored = {"data": _data(name), "type": TYPE, "id": ""}
    return json.dumps(stored).encode().removesuffix(b'"}'), b'", "ends_after": 0}'


def find_end(payload: bytes) -> int | None:
    """Return the offset of the end before, or 0, if an event is an end.

    Its last key is then one that no message has, right before the end of the object.
    """
    found = _TAIL.search(payload, len(payload) - _LONGEST)
    return None if found is None else int(found[1])


def entry(name: bytes, position: Position) -> Entry:
    """Return the end of a channel, if no more than its position is known."""
    head, tail = split_payload(name)
    frame = f"event:{TYPE}\ndata:{_data(name)}\nid:{position}{END}\n\n"
    payload = b"%b%b%b" % (head, str(position).encode(), tail)
    return Entry(position, "", frame.encode(), payload, ends_after=0)


def _data(name: bytes) -> str:
    return json.dumps({"channel": channel_name.to_text(name)})
