"""The slots of a Redis Cluster: where a channel belongs, and how a key gets there.

Pure; nothing blocks. All processes must agree on the tags, so they must never change.
"""

from binascii import crc_hqx
from functools import cache
from itertools import product
from typing import Final

LONGEST: Final = 128
"""Bytes of the longest name that is part of a key as it is."""

SLOTS: Final = 1 << 14
_ALPHABET: Final = "@ABCDEFGHIJKLMNO"


def slot(name: bytes) -> int:
    """Return the slot of a key or a channel."""
    return crc_hqx(_hashed_part(name), 0) % SLOTS


def tag(name: bytes) -> bytes:
    """Return what gives a key the slot of a channel, if braces around it are the key's first."""
    part = _hashed_part(name)
    if part and b"}" not in part and len(name) <= LONGEST:
        return part
    return _short_tags()[slot(name)]


def _hashed_part(name: bytes) -> bytes:
    """Return what Redis hashes of a name: what its first braces contain, or all of it."""
    _, _, rest = name.partition(b"{")
    part, brace, _ = rest.partition(b"}")
    return part if part and brace else name


@cache
def _short_tags() -> dict[int, bytes]:
    """Return a tag for each slot; making them takes about 50 ms."""
    # The checksum is linear, and these letters differ in four bits, so that the tags of four
    # letters are spread evenly: four of them for each slot.
    tags: dict[int, bytes] = {}
    for letters in product(_ALPHABET, repeat=4):
        text = "".join(letters).encode()
        tags.setdefault(crc_hqx(text, 0) % SLOTS, text)
    return tags
