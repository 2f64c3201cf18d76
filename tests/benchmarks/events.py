"""The events that the benchmark publishes, each one recognizable wherever it turns up."""

from __future__ import annotations

import re
from typing import Final

EVENT_BYTES: Final = 100
"""Bytes of data in each event."""

_HEAD: Final = re.compile(rb"bench-(\d{6})-(\d{8})-")
_FILLING: Final = b"0123456789abcdefghijklmnopqrstuvwxyz" * 4


def event_data(channel: int, number: int) -> bytes:
    """Return the data of event ``number`` of ``channel``: no other event has the same."""
    head = b"bench-%06d-%08d-" % (channel, number)
    return head + _FILLING[: EVENT_BYTES - len(head)]


def read_event(data: bytes) -> tuple[int, int] | None:
    """Return channel and number of the event with exactly this data, ``None`` if none of ours."""
    head = _HEAD.match(data)
    if head is None:
        return None
    channel, number = int(head[1]), int(head[2])
    return (channel, number) if data == event_data(channel, number) else None
