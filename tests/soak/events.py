"""What is published: numbered events, whose text follows from their number."""

from typing import Final, NamedTuple

KEPT: Final = {"first": 100_000, "second": 100_000, "heavy": 100_000, "short": 100}
"""The channels, and how many events of each are kept. Only of ``short`` some are trimmed."""

INTERVALS: Final = {"first": 0.04, "second": 0.04, "heavy": 0.1, "short": 0.04}
"""Seconds between two events of a channel."""

FOREIGN: Final = "foreign"
"""The type of the events that are published without history."""

_LARGE_EACH: Final = 100
_LARGE: Final = 100_000
_SIZES: Final = {"heavy": 8000}


class Number(NamedTuple):
    """Names a published event."""

    channel: str
    value: int


def size_of(number: Number) -> int:
    """Return how many bytes of filling an event has."""
    if number.channel == "second" and number.value % _LARGE_EACH == 0:
        # This is more than Redis sends through the channel.
        return _LARGE
    return _SIZES.get(number.channel, 100)


def text_of(number: Number) -> str:
    """Return the data of an event."""
    return f"{number.channel} {number.value} {'x' * size_of(number)}"
