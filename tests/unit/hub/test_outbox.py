"""The data that waits for a client: its order, its size, and its limit."""

import random
from collections.abc import Callable
from typing import Final

import pytest

from flask_sse._hub.outbox import Outbox

SIZES: Final = [1, 5, 900, 32_768, 65_535, 65_536, 65_537, 100_000]


def drain(outbox: Outbox, accept: Callable[[int], int]) -> tuple[bytes, list[int]]:
    """Send everything.

    :param accept: Says how many bytes of so many the socket accepts.
    :return: what has been sent, and how many bytes the socket was offered each time.
    """
    sent = b""
    offered: list[int] = []
    while outbox:
        data, start = outbox.next_part()
        offered.append(len(data) - start)
        number = accept(offered[-1])
        sent += data[start : start + number]
        left = outbox.size - number
        outbox.advance(number)
        assert outbox.size == left
    assert outbox.size == 0
    return sent, offered


def everything(number: int) -> int:
    """Accept all of it."""
    return number


def test_the_rest_of_a_part_is_sent() -> None:
    """The socket is offered what it has not accepted yet, as often as it takes."""
    outbox = Outbox(b"0123456789", 3)
    assert outbox
    assert outbox.size == 7
    assert outbox.next_part() == (b"0123456789", 3)
    outbox.advance(4)
    assert outbox.size == 3
    assert outbox.next_part() == (b"0123456789", 7)
    outbox.advance(0)
    assert outbox.next_part() == (b"0123456789", 7)
    outbox.advance(3)
    assert not outbox
    assert outbox.size == 0


@pytest.mark.parametrize("seed", range(50))
def test_each_byte_is_sent_once_and_in_order(seed: int) -> None:
    """That is so for parts of all sizes, however much the socket accepts, and if more is added."""
    chance = random.Random(seed)
    parts = [chance.randbytes(chance.choice(SIZES)) for _ in range(chance.randint(1, 12))]
    accepted = chance.randrange(len(parts[0]))
    outbox = Outbox(parts[0], accepted)
    waiting = parts[1:]

    def accept(number: int) -> int:
        if waiting:
            outbox.add(waiting.pop(0))
        return chance.randint(0, number)

    sent, _ = drain(outbox, accept)
    assert sent == b"".join(parts[: len(parts) - len(waiting)])[accepted:]


def test_small_parts_are_sent_together() -> None:
    """The socket is offered up to 64 KiB at a time, beginning with the rest of the first part."""
    outbox = Outbox(b"a" * 1000, 500)
    for _ in range(130):
        outbox.add(b"b" * 1000)
    sent, offered = drain(outbox, everything)
    assert offered == [65_500, 65_000]
    assert sent == b"a" * 500 + b"b" * 130_000


@pytest.mark.parametrize(
    ("first", "accepted", "second", "expected"),
    [
        (60_000, 0, 5_536, [65_536]),
        (60_000, 0, 5_537, [60_000, 5_537]),
        (65_535, 0, 1, [65_536]),
        (65_536, 0, 1, [65_536, 1]),
        (65_537, 2, 1, [65_536]),
    ],
)
def test_64_kib_at_a_time(first: int, accepted: int, second: int, expected: list[int]) -> None:
    """Parts are sent together if they have 64 KiB in all, but not one byte more."""
    outbox = Outbox(b"a" * first, accepted)
    outbox.add(b"b" * second)
    assert drain(outbox, everything)[1] == expected


def test_tiny_parts() -> None:
    """The number of parts that are sent together has a limit as well."""
    outbox = Outbox(b"a", 0)
    for _ in range(1023):
        outbox.add(b"b")
    assert drain(outbox, everything)[1] == [512, 512]


def test_a_part_that_is_sent_alone_is_not_copied() -> None:
    """It may wait for many clients, which share the same bytes."""
    parts = [b"x" * 200_000, b"y" * 50_000, b"z" * 50_000]
    outbox = Outbox(parts[0], 0)
    outbox.add(parts[1])
    outbox.add(parts[2])
    for part in parts:
        outbox.advance(10)
        assert outbox.next_part() == (part, 10)
        assert outbox.next_part()[0] is part
        outbox.advance(len(part) - 10)
    assert not outbox


def test_the_limit() -> None:
    """As many bytes may wait as the limit says; what has been accepted doesn't count."""
    outbox = Outbox(b"0123456789", 4)
    assert outbox.offer(b"abcd", 10)
    assert not outbox.offer(b"e", 10)
    assert outbox.size == 10
    outbox.advance(1)
    assert outbox.offer(b"e", 10)
    assert drain(outbox, everything)[0] == b"56789abcde"


def test_adding_regardless_of_the_limit() -> None:
    """The end of a response can always be added."""
    outbox = Outbox(b"0123456789", 0)
    outbox.add(b"end")
    assert outbox.size == 13
    assert not outbox.offer(b"", 10)
    assert drain(outbox, everything)[0] == b"0123456789end"
