"""Who is behind, and whose question is next."""

import random

import pytest

from flask_sse._log.catch_up import Ahead, CatchUp, Gap
from flask_sse._log.page import Page
from flask_sse._log.position import ANY_EPOCH, UNKNOWN, Cursor, Mark, Position
from tests.support.log import Log


@pytest.fixture
def log() -> Log:
    """Return a log with ten events."""
    log = Log()
    log.add(10)
    return log


def at(log: Log, offset: int) -> Position:
    """Return the position after an event."""
    return log.entries[offset - 1].position


def waiting(log: Log, **offsets: int) -> CatchUp[str]:
    """Return clients that wait for a page, in this order."""
    catch_up = CatchUp[str]()
    for name, offset in offsets.items():
        catch_up.add(name, at(log, offset))
        catch_up.wait(name)
    return catch_up


def test_who_is_behind(log: Log) -> None:
    """Clients are added, move on, and are forgotten."""
    catch_up = CatchUp[str]()
    assert not catch_up
    catch_up.add("a", at(log, 1))
    catch_up.add("b", at(log, 2))
    catch_up.add("a", at(log, 3))
    assert len(catch_up) == 2
    assert [*catch_up] == ["a", "b"]
    assert catch_up.cursor("a") == at(log, 3)
    catch_up.wait("a")
    assert catch_up.is_waiting("a")
    assert not catch_up.is_waiting("b")
    assert repr(catch_up) == "<CatchUp 2 behind, 1 waiting for a page>"
    for _ in range(2):
        catch_up.discard("a")
    assert [*catch_up] == ["b"]
    assert catch_up.cursor("a") is None
    assert not catch_up.is_waiting("a")
    for client in catch_up:
        catch_up.discard(client)
    assert not catch_up


def test_a_question_is_asked_once(log: Log) -> None:
    """There is no other question before the answer, or the failure."""
    catch_up = waiting(log, a=1)
    assert CatchUp[str]().question("e") is None
    assert catch_up.question("e") == 1
    assert catch_up.question("e") is None
    catch_up.failed()
    assert catch_up.question("e") == 1
    assert [*catch_up.answered(log.page(1), log.top)] == [("a", log.entries[1:])]
    assert catch_up.question("e") is None
    catch_up.wait("a")
    assert catch_up.question("e") == 1


def test_turns(log: Log) -> None:
    """Questions are for the one that has waited longest and for the lowest position in turn."""
    catch_up = waiting(log, a=5, b=2, c=7)
    asked: list[int | None] = []
    for _ in range(4):
        asked.append(catch_up.question("e"))
        catch_up.failed()
    assert asked == [5, 2, 5, 2]
    catch_up.wait("a")
    assert catch_up.waiting == ["a", "b", "c"]
    catch_up.stop_waiting("a")
    catch_up.wait("a")
    assert catch_up.waiting == ["b", "c", "a"]


def test_ids_from_another_log(log: Log) -> None:
    """Any page shows that they are, so the question is for others, if there are any."""
    catch_up = CatchUp[str]()
    catch_up.add("a", Position("other", 1, "x"))
    catch_up.wait("a")
    assert catch_up.question("e") == 1
    catch_up.failed()
    catch_up.add("b", at(log, 5))
    catch_up.wait("b")
    for _ in range(2):
        assert catch_up.question("e") == 5
        catch_up.failed()
    assert catch_up.question("e") == 5
    found = dict(catch_up.answered(log.page(5), log.top))
    assert isinstance(found["a"], Gap)
    assert "the log is a different one" in found["a"].reason


def test_what_a_page_says(log: Log) -> None:
    """Each client gets what concerns it, and one whose events come before the page waits on."""
    catch_up = waiting(log, early=3, exact=4, later=8, top=10)
    catch_up.add("unknown", UNKNOWN)
    catch_up.wait("unknown")
    assert catch_up.question("e") == 3
    found = dict(catch_up.answered(log.page(4), log.top))
    assert catch_up.waiting == ["early"]
    assert len(catch_up) == 5
    unknown = found.pop("unknown")
    assert isinstance(unknown, Gap)
    assert found == {"exact": log.entries[4:], "later": log.entries[8:], "top": ()}


def test_a_page_ends_where_the_live_clients_are(log: Log) -> None:
    """They get the events after that all together."""
    catch_up = waiting(log, a=4, b=5)
    catch_up.add("c", at(log, 6))
    assert catch_up.question("e") == 4
    assert dict(catch_up.answered(log.page(4), at(log, 5))) == {"a": log.entries[4:5], "b": []}
    # A client that does not wait gets nothing.
    assert catch_up.cursor("c") == at(log, 6)


@pytest.mark.parametrize("is_mark", [False, True], ids=["position", "mark"])
@pytest.mark.parametrize(
    "position",
    [Position("other", 8, "x"), Position("e", 4, "x"), Position("e", 5, "x")],
    ids=["another log", "earlier", "another event"],
)
def test_a_client_that_is_ahead(log: Log, position: Position, is_mark: bool) -> None:
    """The log has continued where the live clients are not, so it must be compared."""
    catch_up = waiting(log, a=5)
    if is_mark:
        catch_up.add("a", Mark.of(at(log, 5)))
    assert [*catch_up.answered(log.page(5), position)] == [("a", Ahead(at(log, 5)))]


def test_clients_that_leave_in_the_meantime(log: Log) -> None:
    """They get nothing of the page."""
    catch_up = waiting(log, a=4, b=5)
    found = catch_up.answered(log.page(4), log.top)
    assert next(found)[0] == "a"
    catch_up.discard("b")
    assert [*found] == []


def test_clients_that_come_after_the_question(log: Log) -> None:
    """A page that is older than their ids does not prove that the log has lost these."""
    catch_up = waiting(log, a=5)
    assert catch_up.question("e") == 5
    page = log.page(5)
    later = log.add()[0].position
    for name, cursor in {"b": later, "c": UNKNOWN, "d": at(log, 7)}.items():
        catch_up.add(name, cursor)
        catch_up.wait(name)
    found = dict(catch_up.answered(page, page.top))
    assert found == {"a": page.entries, "d": page.entries[2:]}
    assert catch_up.waiting == ["b", "c"]
    assert catch_up.question("e") == 11
    found = dict(catch_up.answered(log.page(11), page.top))
    assert found["b"] == Ahead(later)
    assert isinstance(found["c"], Gap)


def test_a_page_that_nobody_asked_for(log: Log) -> None:
    """It does not prove that the log has lost an id."""
    catch_up = CatchUp[str]()
    catch_up.add("a", UNKNOWN)
    catch_up.wait("a")
    assert [*catch_up.answered(log.page(1), log.top)] == []
    assert catch_up.is_waiting("a")


def test_a_log_that_ends_before_the_live_clients(log: Log) -> None:
    """A client at its end is not asked for again and again: the log must be compared."""
    catch_up = waiting(log, a=5)
    catch_up.question("e")
    page = Page(5, at(log, 5), [])
    assert [*catch_up.answered(page, at(log, 7))] == [("a", Ahead(at(log, 5)))]
    assert not catch_up.is_waiting("a")


def waiting_at(**cursors: Cursor) -> CatchUp[str]:
    """Return clients that wait for a page, in this order."""
    catch_up = CatchUp[str]()
    for name, cursor in cursors.items():
        catch_up.add(name, cursor)
        catch_up.wait(name)
    return catch_up


def test_marks_become_positions(log: Log) -> None:
    """The page that has what comes after a mark shows which position it stands for."""
    places = {"early": 3, "exact": 4, "later": 8, "top": 10}
    catch_up = waiting_at(**{name: Mark.of(at(log, offset)) for name, offset in places.items()})
    assert catch_up.question("e") == 3
    found = dict(catch_up.answered(log.page(4), log.top))
    assert found == {"exact": log.entries[4:], "later": log.entries[8:], "top": ()}
    assert catch_up.waiting == ["early"]
    assert catch_up.cursor("early") == Mark.of(at(log, 3))
    for name in found:
        assert catch_up.cursor(name) == at(log, places[name])


def test_a_page_for_a_mark_ends_where_the_live_clients_are(log: Log) -> None:
    """They get the events after that all together."""
    catch_up = waiting_at(a=Mark.of(at(log, 4)), b=Mark.of(at(log, 5)), c=Mark.of(at(log, 7)))
    assert catch_up.question("e") == 4
    found = dict(catch_up.answered(log.page(4), at(log, 5)))
    assert found == {"a": log.entries[4:5], "b": [], "c": Ahead(at(log, 7))}
    for name, offset in {"a": 4, "b": 5, "c": 7}.items():
        assert catch_up.cursor(name) == at(log, offset)


def test_the_question_for_a_mark(log: Log) -> None:
    """Marks count like positions of this log: no other page shows what they stand for."""
    catch_up = waiting_at(a=Position("other", 1, "x"), b=Mark(7, "made-up"), c=at(log, 5))
    asked: list[int | None] = []
    for _ in range(4):
        asked.append(catch_up.question("e"))
        catch_up.failed()
    assert asked == [7, 5, 7, 5]
    catch_up.discard("c")
    assert catch_up.question("another") == 7


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 5, 9, 10, 11, 1 << 42])
@pytest.mark.parametrize("kept", [0, 1, 8])
def test_a_mark_that_is_made_up(log: Log, kept: int, offset: int) -> None:
    """It is a gap, and costs one page."""
    log.entries = log.entries[10 - kept :]
    log.page_bytes = 1
    catch_up = waiting_at(a=Mark(offset, "made-up"))
    assert catch_up.question("e") == offset
    ((client, found),) = catch_up.answered(log.page(offset), log.top)
    assert client == "a"
    assert isinstance(found, Gap)
    assert found.reason
    assert not catch_up.waiting
    assert catch_up.question("e") is None


def test_many_marks_that_are_made_up(log: Log) -> None:
    """They cost a page each at most, and keep nobody else waiting."""
    chance = random.Random(1)
    log.page_bytes = 1
    made_up = {f"{one}": Mark(chance.randint(0, 15), "made-up") for one in range(100)}
    catch_up = waiting_at(**made_up, a=Mark.of(at(log, 4)), b=at(log, 6))
    told: dict[str, object] = {}
    pages = 0
    while (after := catch_up.question("e")) is not None:
        pages += 1
        told |= catch_up.answered(log.page(after), log.top)
    assert told.keys() == {*made_up, "a", "b"}
    assert all(isinstance(told[name], Gap) for name in made_up)
    assert told["a"] == log.entries[4:5]
    assert told["b"] == log.entries[6:7]
    assert pages <= 11


def test_a_mark_that_is_newer_than_the_page(log: Log) -> None:
    """A page that is older does not prove that the log has lost it."""
    catch_up = waiting(log, a=5)
    assert catch_up.question("e") == 5
    page = log.page(5)
    later = log.add()[0].position
    catch_up.add("b", Mark.of(later))
    catch_up.wait("b")
    assert dict(catch_up.answered(page, page.top)) == {"a": page.entries}
    assert catch_up.question("e") == 11
    assert dict(catch_up.answered(log.page(11), page.top)) == {"b": Ahead(later)}


def test_a_mark_at_the_end_of_an_older_page(log: Log) -> None:
    """The log ends where it was read before the live clients got more: it must be compared."""
    catch_up = waiting_at(a=Mark.of(at(log, 5)))
    assert catch_up.question("e") == 5
    page = Page(5, at(log, 5), [])
    assert [*catch_up.answered(page, at(log, 7))] == [("a", Ahead(at(log, 5)))]


def test_clients_that_begin_with_the_oldest_entry(log: Log) -> None:
    """The page shows where that is, which is their position from then on."""
    log.entries = log.entries[3:]
    catch_up = CatchUp[str]()
    for name, offset in {"a": 0, "b": 5}.items():
        catch_up.add(name, Position(ANY_EPOCH, offset, ""))
        catch_up.wait(name)
    for _ in range(2):
        catch_up.add("c", log.entries[5].position)
        catch_up.wait("c")
        assert catch_up.question("e") == 0
        catch_up.failed()
    catch_up.discard("c")
    assert catch_up.question("e") == 0
    found = dict(catch_up.answered(log.page(0), at(log, 4)))
    assert found == {"a": log.entries[:4], "b": log.entries[2:4]}
    assert catch_up.cursor("a") == log.entries[0].before
    assert catch_up.cursor("b") == log.entries[1].position


def test_clients_that_begin_in_a_log_that_has_no_entries_any_more(log: Log) -> None:
    """They have seen everything."""
    log.entries = []
    catch_up = CatchUp[str]()
    catch_up.add("a", Position(ANY_EPOCH, 0, ""))
    catch_up.wait("a")
    assert catch_up.question("e") == 0
    assert dict(catch_up.answered(log.page(0), log.top)) == {"a": ()}
    assert catch_up.cursor("a") == log.top
