"""Slots: the key of a channel's log is where Redis Cluster has the channel itself."""

import random
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from flask_sse._redis.log_commands import key
from flask_sse._redis.slots import LONGEST, slot, tag

ODD: Final = [
    *(b"", b"}", b"{", b"{}", b"}{", b"{}x", b"x{}", b"x}", b"{x", b"{{x}}", b"{}{x}", b"a{b}c"),
    *(b"a{b", b"a}b{c}", b"{a}}", b"{{}", b"{{}}", b" ", b"\n", b"\0", b"a b", b"\xff{\xfe}"),
    *(
        b"x" * LONGEST,
        b"x" * (LONGEST + 1),
        b"{x}" + b"y" * 200,
        b"}" * 200,
        b"{%b}" % (b"x" * 200),
    ),
]


@given(st.binary(max_size=12) | st.text("{}x: ", max_size=300).map(str.encode))
def test_every_name(name: bytes) -> None:
    """A name has the slot that redis-py computes, and its key has the same one."""
    assert slot(name) == slot(key(name)) == key_slot(name) == key_slot(key(name))


@pytest.mark.parametrize("name", ODD)
def test_odd_names(name: bytes) -> None:
    """The same for names that contain braces, are empty, or are long."""
    assert slot(name) == slot(key(name)) == key_slot(name) == key_slot(key(name))


def test_thousands_of_names() -> None:
    """Keys have the right slot, are unique and short, and contain the name if that is short."""
    source = random.Random(7)
    names = {bytes(source.choices(b"{}ab \xff", k=source.randrange(9))) for _ in range(9000)}
    names |= {bytes(source.choices(b"{}ab", k=source.randrange(120, 400))) for _ in range(2000)}
    names |= {b"user.%d" % number for number in range(2000)} | {*ODD}
    keys = {key(name): name for name in names}
    assert len(keys) == len(names) > 5000
    for its_key, name in keys.items():
        assert key_slot(its_key) == key_slot(name)
        assert len(its_key) < 20 + 2 * LONGEST
        assert its_key.endswith(name) or len(name) > LONGEST


@given(st.sets(st.text("{}:x", max_size=8).map(str.encode), min_size=2, max_size=9))
@example({b"", b":"})
def test_keys_are_unique(names: set[bytes]) -> None:
    """Two channels never have the same key."""
    assert len({key(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"sse", b"flask-sse:{sse}:sse"),
        (b"shop.{7}.orders", b"flask-sse:{7}:shop.{7}.orders"),
        (b"{{x", b"flask-sse:{{{x}:{{x"),
        (b"", b"flask-sse:{AKOB}:"),
        (b"x}", b"flask-sse:{A@JL}:x}"),
        (b"x" * 129, b"flask-sse:{BEG@}:2699b675922cc84a9b0dfd926eb7f8211c78693d"),
    ],
)
def test_keys_stay_what_they_are(name: bytes, expected: bytes) -> None:
    """Processes of different versions use the same keys."""
    assert key(name) == expected


def test_all_slots_have_a_short_tag() -> None:
    """A name that can't be in braces gets four letters with its slot."""
    found = dict[int, bytes]()
    number = 0
    while len(found) < 1 << 14:
        name = b"}%d" % number
        found[key_slot(name)] = tag(name)
        number += 1
    assert all(len(short) == 4 and key_slot(short) == slot for slot, short in found.items())
