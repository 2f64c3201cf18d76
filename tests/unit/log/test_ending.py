"""The event that ends a channel: how it is recognized, and how a stream carries it."""

import json
from collections.abc import Mapping

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider

from flask_sse._event.message import Message, split_payload
from flask_sse._log import ending
from flask_sse._log.decoding import Decoder, Foreign, up_to_end
from flask_sse._log.position import Entry, Position, Stored, is_end
from tests.support.log import Log

POSITION = Position("0123456789abcdefx0", 7, "ab")
PROVIDER = Flask("tests").json
DECODER = Decoder(PROVIDER, 0)
NAMES = {"plain": b"job.7", "quotes": b'a"b\\', "odd": b"\xff\n", "text": "ü".encode()}


def published(name: bytes) -> bytes:
    """Return an end as Redis publishes it."""
    head, tail = ending.split_payload(name)
    return b"%b%b.cd%b" % (head, str(POSITION).encode(), tail.replace(b"0", b"12345"))


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_an_end(name: bytes) -> None:
    """It is the same event if it is published, stored, or made from its position."""
    payload = published(name)
    stored = json.loads(payload)
    assert stored["ends_after"] == 12345
    event = DECODER.published(payload)
    assert event == DECODER.stored(Stored(POSITION, "cd", payload))
    assert isinstance(event, Entry)
    assert (event.position, event.previous, event.ends_after) == (POSITION, "cd", 12345)
    assert event.is_end
    kind, data, number = event.frame.decode().splitlines()[:3]
    assert (kind, number) == ("event:sse.end", f"id:{POSITION}.end")
    assert json.loads(data.removeprefix("data:")) == {"channel": name.decode(errors="replace")}
    made = ending.entry(name, POSITION)
    assert (made.frame, made.position, made.is_end) == (event.frame, POSITION, True)
    assert made.payload is not None
    assert ending.find_end(made.payload) == 0


def test_the_data_is_the_same_with_any_provider() -> None:
    """An application's own JSON provider does not change the event."""

    class Spacious(DefaultJSONProvider):
        compact = False
        sort_keys = True

        def dumps(self, obj: object, **kwargs: object) -> str:
            return super().dumps(obj, indent=4, **kwargs)

    other = Decoder(Spacious(Flask("tests")), 0)
    assert other.published(published(b"x")) == DECODER.published(published(b"x"))


@pytest.mark.parametrize(
    "message",
    [
        Message({"channel": "x"}, type="sse.end"),
        Message({"ends_after": 0}),
        Message('", "ends_after": 0}'),
        Message("x", type='", "ends_after": 0}'),
        Message({"x": {"ends_after": 0}}, type="sse.end", retry=3),
    ],
)
def test_other_events(message: Message) -> None:
    """Whatever an application publishes ends nothing."""
    head, tail = split_payload(message, PROVIDER)
    payload = b"%b%b.cd%b" % (head, str(POSITION).encode(), tail)
    event = DECODER.published(payload)
    assert isinstance(event, Entry)
    assert not event.is_end
    assert f"id:{POSITION}\n".encode() in event.frame


def test_an_end_without_a_log() -> None:
    """It is an event like others."""
    event = DECODER.published(b'{"data": "x", "id": "x", "ends_after": 0}')
    assert isinstance(event, Foreign)


def test_the_events_up_to_an_end() -> None:
    """What follows the first end is for others."""
    entries: list[Entry | Foreign] = [*Log().add(4)]
    assert up_to_end(entries) == entries
    entries[1:1] = [Foreign(b"f", b"f")]
    for index in (2, 4):
        entry = entries[index]
        assert isinstance(entry, Entry)
        entries[index] = entry._replace(ends_after=0)
    assert up_to_end(entries) == entries[:3]
    assert not up_to_end([])


IDS: Mapping[str, bool] = {
    f"{POSITION}": False,
    f"{POSITION}.end": True,
    f"{POSITION}.end.end": False,
    f"{POSITION}.cd.end": False,
    f"{POSITION}end": False,
    f"{POSITION}.end\n": False,
    ".end": False,
    "end": False,
    "": False,
    "1-abcde": False,
}


@pytest.mark.parametrize(("text", "is_over"), IDS.items())
def test_ids(text: str, is_over: bool) -> None:
    """An end's id is its position with something added, and parsed like the position."""
    assert is_end(text) is is_over
    if is_over:
        assert Position.parse(text) == POSITION
