"""The soak finds what it is there to find, and a short one passes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.soak.checker import BROKEN, CONNECTED, Checker, Kind, Record
from tests.soak.events import KEPT, Number, text_of
from tests.soak.run import Plan, soak
from tests.soak.truth import Place, Truth
from tests.support.parser import Event

EPOCH: Final = f"{'a' * 16}x0"
OTHER: Final = f"{'b' * 16}x0"


def in_file(value: int, offset: int, nonce: str, previous: str, epoch: str = EPOCH) -> bytes:
    """Return what a file of Redis has for an event of the channel ``short``."""
    name = f"{epoch}.{offset}.{nonce}.{previous}"
    return json.dumps({"data": text_of(Number("short", value)), "id": name}).encode() + b"\r\n"


# The log was 0, 1, 2, 3; then Redis went back to 0, 1, and it became 0, 1, 4, 5. Then it was lost.
FILE: Final = b"".join(
    [
        in_file(0, 1, "a0", "0"),
        in_file(1, 2, "a1", "a0"),
        in_file(2, 3, "a2", "a1"),
        in_file(3, 4, "a3", "a2"),
        in_file(4, 3, "b4", "a1"),
        in_file(5, 4, "b5", "b4"),
        in_file(6, 1, "c6", "0", OTHER),
    ]
)


@pytest.fixture
def truth() -> Truth:
    """Return what was in the logs."""
    truth = Truth()
    truth.add(FILE)
    return truth


def at(offset: int, nonce: str, epoch: str = EPOCH) -> str:
    """Return an id."""
    return f"{epoch}.{offset}.{nonce}"


def begun(place: str, *, recovered: bool = False) -> Event:
    """Return the first event of a stream."""
    return Event("sse.open", json.dumps({"channel": "short", "recovered": recovered}), place)


def message(value: int, place: str) -> Event:
    """Return an event that was published."""
    return Event("message", text_of(Number("short", value)), place)


def connected(place: str = "") -> Event:
    """Return what stands for a connection."""
    return Event(CONNECTED, "", place)


def reset(place: str) -> Event:
    """Return a reset."""
    return Event("sse.reset", "{}", place)


START: Final = (connected(), begun(at(0, "0")), message(0, at(1, "a0")))
ONE: Final = message(1, at(2, "a1"))
LOST: Final = message(2, at(3, "a2"))
FOUR: Final = message(4, at(3, "b4"))
FIVE: Final = message(5, at(4, "b5"))
RESET: Final = reset(at(4, "b5"))


def kinds(truth: Truth, *events: Event) -> list[Kind]:
    """Return what is wrong with a record."""
    checker = Checker(truth, Record("short", events), Place.parse(at(4, "b5")))
    return [finding.kind for finding in checker.findings()]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((ONE, FOUR, FIVE), id="of one branch"),
        pytest.param((ONE, LOST, reset(at(3, "b4")), FIVE), id="that has what was lost"),
        pytest.param(
            (connected(at(1, "a0")), begun(at(1, "a0"), recovered=True), ONE, FOUR, FIVE),
            id="that comes back",
        ),
        pytest.param(
            (ONE, LOST, connected(at(3, "a2")), begun(at(3, "a2")), RESET),
            id="that comes back to another branch",
        ),
        pytest.param((reset(at(0, "0", OTHER)), RESET), id="of two logs"),
        pytest.param(
            (Event("foreign", "x", at(1, "a0")), ONE, FOUR, FIVE), id="with a foreign event"
        ),
    ],
)
def test_a_right_record(truth: Truth, events: Sequence[Event]) -> None:
    """Nothing is wrong with the record of a client that was told all it had to know."""
    assert kinds(truth, *START, *events) == []


@pytest.mark.parametrize(
    ("kind", "events"),
    [
        (Kind.GAP, (FOUR, FIVE)),
        (Kind.GAP, (ONE, LOST, FIVE)),
        (Kind.TWICE, (START[-1], ONE, RESET)),
        (Kind.UNKNOWN, (message(1, at(2, "77")), RESET)),
        (Kind.UNKNOWN, (Event("other", "x", at(1, "a0")), RESET)),
        (Kind.ALTERED, (message(7, at(2, "a1")), FOUR, FIVE)),
        (Kind.RESET, (reset(at(3, "b4")), FIVE)),
        (Kind.BROKEN, (Event(BROKEN, "x", ""), ONE, FOUR, FIVE)),
        (Kind.UNFINISHED, (ONE, FOUR)),
        (Kind.OPENING, (connected(at(1, "a0")), begun(at(2, "a1"), recovered=True), FOUR, FIVE)),
        (Kind.OPENING, (connected(at(1, "a0")), begun(at(1, "a0")), ONE, FOUR, FIVE)),
    ],
)
def test_a_wrong_record(truth: Truth, kind: Kind, events: Sequence[Event]) -> None:
    """What is wrong is found, and named."""
    assert kind in kinds(truth, *START, *events)


def test_the_order(truth: Truth) -> None:
    """An event that comes before the one that the client has is found."""
    here = connected(), begun(at(2, "a1"))
    assert kinds(truth, *here, START[-1], RESET)[0] == Kind.ORDER


def test_a_reset_because_of_what_is_kept(truth: Truth) -> None:
    """A reset within a branch is right if events are not kept any more, and only then."""
    kept = KEPT["short"]
    nonces = ["0", *(f"{number:x}" for number in range(1, kept + 3))]
    for offset in range(1, kept + 3):
        truth.add(in_file(offset, offset, nonces[offset], nonces[offset - 1], OTHER))
    for offset, findings in ((1, []), (2, [Kind.RESET])):
        end = at(kept + 2, nonces[-1], OTHER)
        record = (connected(), begun(at(offset, nonces[offset], OTHER)), reset(end))
        checker = Checker(truth, Record("short", record), Place.parse(end))
        assert [finding.kind for finding in checker.findings()] == findings


def test_the_logs_themselves(truth: Truth) -> None:
    """An event that is missing, one that is twice in a branch, and a wrong order are found."""
    numbers = [Number("short", value) for value in range(7)]
    assert [*truth.faults(numbers)] == []
    [fault] = truth.faults([*numbers, Number("short", 7)])
    assert "in no log" in fault
    truth.add(in_file(0, 5, "b0", "b5"))
    assert any("twice" in fault for fault in truth.faults(numbers))
    assert any("comes after" in fault for fault in truth.faults(numbers))


@pytest.mark.long
def test_a_short_soak(tmp_path: Path) -> None:
    """With faults in quick succession, every record is right."""
    report = soak(Plan(seconds=20, clients=80, seed=1, pause=1), tmp_path)
    assert report.is_sound, "\n".join(report.lines())
    assert report.counts["message"] > 1000
    assert report.counts["resumed"] > 80
    assert report.counts["sse.reset"] > 80
    assert report.lost > 0
    assert len(report.faults) == 14


@pytest.mark.long
def test_a_short_soak_of_a_cluster(tmp_path: Path) -> None:
    """While the nodes of a cluster fail, every record is right, too."""
    report = soak(Plan(seconds=40, clients=80, seed=1, pause=1, is_on_cluster=True), tmp_path)
    assert report.is_sound, "\n".join(report.lines())
    assert report.counts["message"] > 1000
    assert report.counts["resumed"] > 80
