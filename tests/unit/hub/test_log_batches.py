"""What the listeners of a channel with history get."""

import json
from typing import Final

import pytest

from flask_sse._hub import log_batches
from flask_sse._hub.batch import Batch
from flask_sse._log.decoding import Foreign
from flask_sse._log.position import Entry, Position
from tests.support.log import Log
from tests.support.parser import Event, Parser

POSITION: Final = Position("e", 7, "ab")


def parse(batch: Batch) -> list[Event]:
    """Return the events of a batch as a client sees them."""
    parser = Parser()
    parser.feed(batch.frames)
    return parser.events


@pytest.mark.parametrize("recovered", [True, False])
def test_the_opening(recovered: bool) -> None:
    """It names the channel, and a client that loses its connection resumes from its id."""
    batch = log_batches.opening("caf\u00e9 1".encode(), POSITION, recovered=recovered)
    [event] = parse(batch)
    assert event.type == "sse.open"
    assert event.id == "e.7.ab"
    assert json.loads(event.data) == {"channel": "caf\u00e9 1", "recovered": recovered}
    assert not batch.payloads, "no signal counts it"


def test_a_reset() -> None:
    """It comes with its reason, before the newest event."""
    log = Log()
    [entry] = log.add(1, "hello")
    reset, newest = parse(batch := log_batches.reset(b"x", "lost", POSITION, [entry]))
    assert reset.type == "sse.reset"
    assert reset.id == "e.7.ab"
    assert json.loads(reset.data) == {"channel": "x", "reason": "lost"}
    assert (newest.data, newest.id) == ("hello", str(entry.position))
    assert batch.payloads == [b"hello"]
    assert parse(log_batches.reset(b"x", "lost", POSITION)) == [reset]


def test_events() -> None:
    """They keep their order; an event that can't be decoded is left out."""
    first, second = Log().add(2)
    malformed = Entry(POSITION, "", b"", None)
    foreign = Foreign(b"data:foreign\n\n", b"foreign")
    batch = log_batches.from_events([first, malformed, foreign, second])
    assert batch.payloads == [first.payload, b"foreign", second.payload]
    assert batch.frames == first.frame + foreign.frame + second.frame
