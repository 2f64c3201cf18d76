"""The ids of streams with several channels: what they contain, and what is made of any text."""

import random
import string
import time
from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse._log.composite_id import MOST_CHANNELS, Encoder, Ended, parse, parse_entry
from flask_sse._log.page import Page
from flask_sse._log.position import UNKNOWN, Cursor, Mark, Position

EPOCH: Final = "0123456789abcdefx0"
PLACES: Final = (Position(EPOCH, 1_000_000, "5d41402abc"), Position(EPOCH, 0, "0"), Ended.ENDED)
NAMES: Final = (b"a", b"b", b"c")
ID: Final = "1-mywygD0JAzDG4Q38-LZGiC6hL5Lb9-.r4py"

COLLIDING: Final = (
    (b"room.64414", b"room.67046"),
    (b"room.38257", b"room.58568"),
    (b"room.13929", b"room.15251"),
    (b"room.17763", b"room.36858"),
    (b"room.9890", b"room.70290"),
    (b"room.53770", b"room.54692"),
    (b"room.11857", b"room.79524"),
    (b"room.7738", b"room.41548"),
    (b"room.41832", b"room.49491"),
)
"""The names of each pair have the same key: those of the first with the salt 1, and so on to 9."""

LONGEST: Final = 1_001
LAST: Final = 64**7 - 1
"""The last offset that an id can name."""

Place = Cursor | Ended


def make(names: Sequence[bytes], places: Sequence[Place]) -> str:
    """Return the id of a client that is at these places."""
    encoder = Encoder(names)
    entries = [
        encoder.keys[index] if isinstance(place, Ended) else encoder.entry(index, place)
        for index, place in enumerate(places)
    ]
    return encoder.join(entries).decode("ascii")


def as_parsed(place: Place) -> Place:
    """Return what a client's place is, as its id says it."""
    return Mark.of(place) if isinstance(place, Position) else place


MARKS: Final = tuple(as_parsed(place) for place in PLACES)


# What is made


def test_the_format() -> None:
    """It stays the same: clients keep ids while applications are updated."""
    assert make(NAMES, PLACES) == ID


def test_a_mark_gives_the_same_entry_as_its_position() -> None:
    """A channel has no need to know which of the two a client has."""
    assert make(NAMES, MARKS) == ID


@pytest.mark.parametrize(
    ("offset", "digits"),
    [
        *[(0, ""), (1, "B"), (63, "_"), (64, "BA"), (64**2 - 1, "__"), (64**2, "BAA")],
        *[(64**6, "BAAAAAA"), (LAST - 1, "______."), (LAST, "_______")],
    ],
)
def test_offsets(offset: int, digits: str) -> None:
    """They have as many digits as they need."""
    position = Position(EPOCH, offset, "1")
    text = make([b"a"], [position])
    assert text[7:-7] == digits
    assert parse(text, [b"a"]) == (Mark.of(position),)


@pytest.mark.parametrize("offset", [LAST + 1, 64**8, 10**14 - 1])
def test_offsets_that_are_too_large(offset: int) -> None:
    """No id says that a client is at another event; the client is told of a gap."""
    position = Position(EPOCH, offset, "1")
    found = parse(make([b"a"], [position]), [b"a"])
    assert found is not None
    (mark,) = found
    assert isinstance(mark, Mark)
    assert mark.offset == LAST
    assert not mark.matches(position)
    assert not mark.matches(Position(EPOCH, LAST, "2"))


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 651), (1_000_000, 851), (64**6, LONGEST), (LAST, LONGEST), (10**14 - 1, LONGEST)],
)
def test_the_longest_ids(offset: int, length: int) -> None:
    """No server rejects a header of this length."""
    names = [b"%d" % number for number in range(MOST_CHANNELS)]
    places = [Position(EPOCH, offset, f"{number:x}") for number in range(MOST_CHANNELS)]
    assert len(make(names, places)) == length


def test_all_characters_are_allowed_everywhere() -> None:
    """Ids need no quotes in a header, a query or an event."""
    allowed = {*string.ascii_letters, *string.digits, *"._-"}
    used = {*"".join([make([b"a"], [Position(EPOCH, n, f"{n}")]) for n in range(100)])}
    assert used == allowed


def test_too_many_channels() -> None:
    """The error says how many there are, and what to do."""
    message = "at most 50 channels with history, not 51; publish to fewer channels, or open several"
    with pytest.raises(ValueError, match=message):
        Encoder([b"%d" % number for number in range(51)])


def test_the_salt_moves_if_names_share_a_key() -> None:
    """Each name has its own key in an id."""
    assert Encoder(COLLIDING[0]).salt == b"2"
    assert Encoder(COLLIDING[1]).salt == b"1"
    assert Encoder([*COLLIDING[0], *COLLIDING[2], *COLLIDING[1]]).salt == b"4"
    names = [name for pair in COLLIDING[:8] for name in pair]
    assert Encoder(names).salt == b"9"
    places = [Position(EPOCH, number, "1") for number in range(16)]
    assert parse(make(names, places), names) == tuple(map(Mark.of, places))


def test_names_that_share_a_key_with_each_salt_of_one_digit() -> None:
    """Names that are chosen for this don't keep clients from resuming."""
    names = [name for pair in COLLIDING for name in pair]
    places = [Position(EPOCH, number, "1") for number in range(18)]
    text = make(names, places)
    assert text.startswith("10-")
    assert parse(text, names[::-1]) == tuple(map(Mark.of, places[::-1]))


def test_a_name_that_is_there_twice() -> None:
    """No salt helps, so it is an error."""
    with pytest.raises(ValueError, match=r"must be named once, not as in \[b'a', b'a'\]"):
        Encoder([b"a", b"a"])


# What is read


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (NAMES, MARKS),
        (NAMES[::-1], MARKS[::-1]),
        ([b"b"], (MARKS[1],)),
        ([b"c"], (Ended.ENDED,)),
        ([b"new"], (None,)),
        ([b"a", b"b", b"c", b"new"], (*MARKS, None)),
        ([b"", b"c", b"A", b"b"], (None, Ended.ENDED, None, MARKS[1])),
        ([], ()),
    ],
)
def test_a_stream_with_other_channels(
    names: Sequence[bytes], found: tuple[Place | None, ...]
) -> None:
    """Channels are known by their names, in any order; others are new or ignored."""
    assert parse(ID, names) == found


@pytest.mark.parametrize(
    ("names", "position"),
    [([b"a"], PLACES[0]), ([b"a", b"b"], None), ([], None)],
    ids=["one channel", "two channels", "no channel"],
)
def test_a_position(names: Sequence[bytes], position: Position | None) -> None:
    """It does not say which of several channels it is from."""
    assert parse(str(PLACES[0]), names) == (None if position is None else (position,))


@pytest.mark.parametrize("places", [MARKS[:1], [Ended.ENDED]], ids=["a mark", "an end"])
def test_channels_that_an_id_does_not_tell_apart(places: Sequence[Place]) -> None:
    """Neither gets what may be the other's, and a third channel is not concerned."""
    one, other = COLLIDING[0]
    text = make([one], places)
    assert text[0] == "1"
    assert parse(text, [one, b"new", other]) == (UNKNOWN, None, UNKNOWN)
    assert parse(text, [one, b"new"]) == (places[0], None)
    assert parse(make([b"a"], MARKS[:1]), [one, other, b"a"]) == (None, None, MARKS[0])


def test_a_mark_of_another_channel() -> None:
    """Two names may share a key, but the check is that of one log."""
    one, other = COLLIDING[0]
    found = parse(make([one], PLACES[:1]), [other])
    assert found == MARKS[:1]
    assert found is not None
    assert isinstance(found[0], Mark)
    assert not found[0].matches(PLACES[0]._replace(epoch="fedcba9876543210x0"))


KEY, VALUE = "ABCDE", "1234567"

MALFORMED: Final = {
    "nothing": "",
    "another application's id": "7",
    "no entry": "1-",
    "a separator": "-",
    "no salt": f"-{KEY}",
    "salt 0": f"0-{KEY}",
    "a salt of three digits": f"100-{KEY}",
    "a salt that begins with 0": f"01-{KEY}",
    "a letter as salt": f"a-{KEY}",
    "another digit as salt": f"\u0661-{KEY}",
    "a short key": f"1-{KEY[1:]}",
    "a short check": f"1-{KEY}{VALUE[1:]}",
    "a long key": f"1-{KEY}F",
    "a long offset": f"1-{KEY}ABCDEFGH{VALUE}",
    "another alphabet": f"1-{KEY}+{VALUE}",
    "other letters": f"1-{KEY[1:]}\u00e9",
    "full-width letters": "1-\uff21\uff22\uff23\uff24\uff25",
    "NUL at the end": f"1-{KEY}\0",
    "NUL in a key": f"1-{KEY[1:]}\0",
    "a line feed at the end": f"1-{KEY}\n",
    "a space before": f" 1-{KEY}",
    "a lone surrogate": f"1-{KEY[1:]}\ud800",
    "only a lone surrogate": "\ud800",
    "an empty entry": f"1-{KEY}--FGHIJ",
    "an empty entry at the end": f"1-{KEY}-",
    "an empty entry at the beginning": f"1--{KEY}",
    "a malformed entry after others": f"{ID}-ABC",
    "a doubled end": f"1-{KEY}-{KEY}",
    "a doubled mark": f"1-{KEY}{VALUE}-{KEY}{VALUE}",
    "a mark and an end": f"1-{KEY}{VALUE}-{KEY}",
    "a doubled entry among others": f"{ID}-{ID[2:7]}",
    "65 entries": "1" + "".join([f"-{number:05}" for number in range(65)]),
    "10,000 entries": "1" + "".join([f"-{number:05}" for number in range(10_000)]),
    "two ids": f"{ID},{ID}",
    "a position and an entry": f"{PLACES[0]}-{KEY}",
    "a position with a line feed": f"{PLACES[0]}\n",
    "a position in Arabic digits": f"{EPOCH}.\u0661.a",
    "an event's own id": f"{PLACES[0]}.4e9",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("names", [NAMES, [b"a"], []], ids=len)
def test_text_that_is_no_such_id(text: str, names: Sequence[bytes]) -> None:
    """It says nothing about any channel."""
    assert parse(text, names) is None


def test_64_entries() -> None:
    """An id may be from a stream with other channels, and from another version."""
    text = "1" + "".join([f"-{number:05}" for number in range(64)])
    assert parse(text, NAMES) == (None, None, None)
    assert parse(f"{ID}{text[1:367]}", NAMES) == MARKS


@pytest.mark.parametrize("salt", ["2", "9", "10", "99"])
def test_an_id_with_another_salt(salt: str) -> None:
    """The keys of one salt mean nothing with another one."""
    assert parse(salt + ID[1:], NAMES) == (None, None, None)


@pytest.mark.parametrize(
    "text",
    [
        *("1-" + "A" * 200_000, "1" + f"-{KEY}" * 40_000, "-" * 200_000, "1" * 200_000),
        *("1" + f"-{KEY}{VALUE}" * 20_000, f"{EPOCH}" + "0" * 200_000, "\ud800-" * 100_000),
    ],
    ids=lambda text: text[:10].encode("ascii", "replace").decode(),
)
def test_long_texts(text: str) -> None:
    """The time grows with the length, and not with its square."""
    begin = time.monotonic()
    for _ in range(10):
        assert parse(text, [b"a"]) is None
    # A search that starts again at each character would take minutes.
    assert time.monotonic() - begin < 5


# What is true of all


def random_place(chance: random.Random) -> Place:
    """Return any place."""
    if chance.random() < 0.1:
        return Ended.ENDED
    offset = chance.choice([0, LAST, chance.randint(0, 100), chance.randint(0, LAST)])
    return Position(f"{chance.getrandbits(64):016x}x0", offset, f"{chance.getrandbits(40):x}")


@given(
    st.integers(1, MOST_CHANNELS),
    st.binary(max_size=20),
    st.lists(st.binary(max_size=20), max_size=5),
    st.randoms(use_true_random=False),
)
def test_round_trip(
    number: int, prefix: bytes, others: Sequence[bytes], chance: random.Random
) -> None:
    """What an id says is read from it, by a stream with any of these channels and with others."""
    places = {b"%b%d" % (prefix, one): random_place(chance) for one in range(number)}
    text = make([*places], [*places.values()])
    assert len(text) <= LONGEST
    names = [*{*chance.sample([*places], chance.randint(0, number)), *others}]
    found = parse(text, names)
    assert found == tuple([as_parsed(places[name]) if name in places else None for name in names])


NEARLY: Final = st.lists(
    st.sampled_from(["1", "9", "-", "-", KEY, ID, VALUE, f"-{KEY}", "A", ".", "\n", "\0", "\ud800"])
    | st.characters(),
    max_size=20,
).map("".join)


@given(
    NEARLY | st.from_regex(r"\A[1-9]{1,2}(-[\w.]{0,22}){0,70}\Z") | st.text(),
    st.lists(st.binary(max_size=3), unique=True, max_size=5),
)
def test_any_text(text: str, names: Sequence[bytes]) -> None:
    """It raises nothing, and what it says can be said again, and matches no other log."""
    found = parse(text, names)
    if found is None:
        return
    for name, place in zip(names, found, strict=True):
        if isinstance(place, Mark):
            assert 0 <= place.offset <= LAST
            assert parse(make([name], [place]), [name]) == (place,)
            page = Page(0, Position(EPOCH, place.offset, "5d41402abc"), ())
            assert isinstance(page.find(place), str)


def test_an_unknown_place_stays_unknown() -> None:
    """A client that is cut off before it learns of a gap learns of it later."""
    found = parse(make(NAMES, [UNKNOWN, *PLACES[1:]]), NAMES)
    assert found is not None
    assert found[1:] == MARKS[1:]
    assert isinstance(found[0], Mark)
    for top in PLACES[:2]:
        assert isinstance(top, Position)
        assert isinstance(Page(-1, top, ()).find(found[0]), str)


def test_entry_alone() -> None:
    """An entry says the same without the rest of its id."""
    encoder = Encoder([b"a", b"b", b"c"])
    first = encoder.entry(0, Position("1f0c0a3b5d7e9f24x0", 1_000_000, "5d41402abc"))
    last = encoder.entry(2, Position("1f0c0a3b5d7e9f24x0", 0, "0"))
    entries = [first, encoder.keys[1], last]
    marks = parse(encoder.join(entries).decode(), [b"a", b"b", b"c"])
    assert marks == (*map(parse_entry, entries),)
    assert parse_entry(entries[1]) is Ended.ENDED
