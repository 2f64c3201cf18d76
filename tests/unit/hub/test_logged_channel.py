"""A channel with history in isolation: the events that its listeners get."""

import contextlib
import socket
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import pytest

from flask_sse._hub.batch import Batch
from flask_sse._hub.bundle import Bundle
from flask_sse._hub.connection import Connection, Terms
from flask_sse._hub.listener import Listener
from flask_sse._hub.log_queries import RING_BYTES
from flask_sse._hub.logged_channel import LoggedChannel
from flask_sse._hub.subscriber import Follower
from flask_sse._log.decoding import Event, Foreign
from flask_sse._log.position import Entry, Mark, Position
from tests.support.log import Log, ids
from tests.support.parser import Parser

LIMIT: Final = 1 << 22


class Client:
    """A client that the server reads for."""

    def __init__(self, cursor: Position | None = None, *, is_strict: bool = False) -> None:
        self.follower = Follower(LIMIT, cursor, is_strict=is_strict)
        self._parser = Parser()

    def take(self) -> list[str]:
        """Return the arrived events: their ids, and the names of those that have one."""
        self._parser.events = []
        while batches := self.follower.take(timeout=0):
            for batch in batches:
                self._parser.feed(batch.frames)
        return [
            event.id if event.type == "message" else f"{event.type} {event.id}"
            for event in self._parser.events
        ]


class Rig:
    """A channel under test, and a Redis that answers its questions."""

    def __init__(self, log: Log, *, sends_latest: bool = False) -> None:
        self.log = log
        self.questions = 0
        self._is_asking = False
        self.lost: list[Listener] = []
        self.channel = LoggedChannel(
            b"x",
            self._note_question,
            lambda: None,
            lambda: RING_BYTES,
            sends_latest=sends_latest,
        )

    def add(self, cursor: Position | None = None, *, is_strict: bool = False) -> Client:
        """Add a client, with the subscription confirmed."""
        client = Client(cursor, is_strict=is_strict)
        client.follower.refill = lambda: self.lost.extend(self.channel.refill(client.follower))
        self.channel.add(client.follower)
        self.lost += self.channel.confirm()
        return client

    def join(self, cursor: Position | None = None, *, is_strict: bool = False) -> Client:
        """Add a client, and let Redis answer."""
        client = self.add(cursor, is_strict=is_strict)
        self.answer()
        return client

    def receive(self, events: Sequence[Event]) -> None:
        """Deliver events through the subscription."""
        self.lost += self.channel.arrived(events)

    def answer(self) -> None:
        """Let Redis answer until no questions are left."""
        for _ in range(1000):
            if not self._is_asking:
                return
            self.answer_once()
        raise AssertionError("there is no end of questions")

    def answer_once(self) -> None:
        """Let Redis answer the questions that are asked now."""
        self._is_asking = False
        for after, is_fill in [*self.channel.questions()]:
            self.questions += 1
            self.lost += self.channel.answered(self.log.page(after), is_fill=is_fill)

    def question(self, *, is_fill: bool = True) -> int | None:
        """Return the offset of the only question, if it is of this kind."""
        (question,) = self.channel.questions()
        return question[0] if question[1] == is_fill else None

    def _note_question(self, channel: LoggedChannel) -> None:
        assert channel is self.channel
        self._is_asking = True


def offset(event_id: str) -> int:
    """Return the number of an event in its log."""
    return int(event_id.split(".")[1])


@pytest.fixture
def log() -> Log:
    """Return a log with three events."""
    log = Log()
    log.add(3)
    return log


@pytest.fixture
def rig(log: Log) -> Rig:
    """Return a channel with that log."""
    return Rig(log)


@pytest.fixture
def client(rig: Rig, log: Log) -> Client:
    """Return a client that is live, and has taken the opening."""
    client = rig.join()
    assert client.take() == [f"sse.open {log.top}"]
    return client


def test_a_hole(rig: Rig, log: Log, client: Client) -> None:
    """Events that the subscription lost are read from the log, before anything else is sent."""
    missed = log.add(2)
    rig.receive(later := log.add(2))
    assert client.take() == []
    rig.answer()
    assert client.take() == ids([*missed, *later])
    assert rig.channel.position == log.top


def test_a_lost_subscription(rig: Rig, log: Log, client: Client) -> None:
    """A new one has the log compared at once."""
    missed = log.add(2)
    rig.channel.begin()
    rig.answer()
    assert client.take() == ids(missed)


def test_a_loss_during_a_question(rig: Rig, log: Log, client: Client) -> None:
    """An answer that may be older than the new subscription is not enough."""
    rig.channel.begin()
    old = rig.log = log.copy()
    missed = log.add(2)
    after = rig.question()
    assert after is not None
    page = old.page(after)
    rig.channel.begin()
    rig.channel.answered(page, is_fill=True)
    rig.log = log
    rig.answer()
    assert client.take() == ids(missed)


def test_another_log(rig: Rig, client: Client) -> None:
    """The first event of a new log does not follow the beginning of the old one."""
    empty = Rig(Log("old"))
    live = empty.join()
    assert live.take() == ["sse.open old.0.0"]
    empty.log = Log("new")
    empty.receive(empty.log.add())
    empty.answer()
    assert live.take() == [f"sse.reset {empty.log.top}"]


@pytest.mark.parametrize("more", [0, 1])
def test_offsets_that_are_repeated(rig: Rig, log: Log, client: Client, more: int) -> None:
    """Other events with the same offsets are a reset, for live and returning clients."""
    snapshot = log.copy()
    rig.receive(lost := log.add(2))
    assert client.take() == ids(lost)
    rig.log = snapshot
    other = snapshot.add(2 + more)
    rig.channel.begin()
    rig.answer()
    assert client.take() == [f"sse.reset {snapshot.top}"]
    for entry in lost:
        back = rig.join(entry.position)
        assert back.take() == [f"sse.open {entry.position}", f"sse.reset {snapshot.top}"]
    back = rig.join(other[0].position)
    assert back.take() == [f"sse.open {other[0].position}", *ids(other[1:])]


def test_an_event_that_is_repeated(rig: Rig, log: Log, client: Client) -> None:
    """Events that have been sent are known, and cause no question."""
    rig.receive(events := log.add(2))
    asked = rig.questions
    rig.receive(events)
    rig.receive(later := log.add())
    rig.answer()
    assert client.take() == ids([*events, *later])
    assert rig.questions == asked


def test_an_event_that_is_like_another(rig: Rig, log: Log, client: Client) -> None:
    """An offset that is known with another nonce is not known."""
    snapshot = log.copy()
    rig.receive(lost := log.add(1))
    rig.log = snapshot
    rig.receive(snapshot.add(1))
    rig.answer()
    assert client.take() == [*ids(lost), f"sse.reset {snapshot.top}"]


def test_a_log_that_ends_earlier(rig: Rig, log: Log, client: Client) -> None:
    """A Redis that has gone back in time is a reset."""
    snapshot = log.copy()
    rig.receive(lost := log.add(2))
    rig.log = snapshot
    rig.channel.begin()
    rig.answer()
    assert client.take() == [*ids(lost), f"sse.reset {snapshot.top}"]


def test_the_end_of_a_trimmed_log(rig: Rig, log: Log) -> None:
    """A client with the event before the oldest entry has missed nothing; other clients have."""
    first, second, _ = log.entries
    log.entries = log.entries[2:]
    assert rig.join(second.position).take() == [f"sse.open {second.position}", str(log.top)]
    assert rig.join(first.position).take() == [
        f"sse.open {first.position}",
        f"sse.reset {log.top}",
    ]
    log.entries = []
    assert Rig(log).join(second.position).take() == [
        f"sse.open {second.position}",
        f"sse.reset {log.top}",
    ]
    assert Rig(log).join(log.top).take() == [f"sse.open {log.top}"]


def test_events_before_the_first_answer(rig: Rig, log: Log) -> None:
    """`publish` counts a client that is subscribed, so its stream begins before them."""
    client = rig.add()
    before = log.top
    rig.receive(events := log.add(2))
    rig.answer()
    assert client.take() == [f"sse.open {before}", *ids(events)]


def test_events_after_the_first_answer(rig: Rig, log: Log) -> None:
    """Events between the answer and its arrival come after the beginning of the stream."""
    client = rig.add()
    before = log.top
    after = rig.question()
    assert after is not None
    page = log.page(after)
    rig.receive(events := log.add(2))
    rig.channel.answered(page, is_fill=True)
    rig.answer()
    assert client.take() == [f"sse.open {before}", *ids(events)]


def test_an_event_that_is_slower_than_the_answer(rig: Rig, log: Log) -> None:
    """The log may be heard of before an event that was published earlier, and counted."""
    before = log.top
    client = rig.add()
    after = rig.question()
    assert after is not None
    events = log.add()
    rig.channel.answered(log.page(after), is_fill=True)
    rig.receive(events)
    rig.answer()
    assert client.take() == [f"sse.open {before}", *ids(events)]


def test_events_during_a_question(rig: Rig, log: Log, client: Client) -> None:
    """Events that arrive before the answer, but are newer, need no other question."""
    rig.channel.begin()
    after = rig.question()
    assert after is not None
    page = log.page(after)
    rig.receive(events := log.add(2))
    assert client.take() == []
    rig.channel.answered(page, is_fill=True)
    assert client.take() == ids(events)


def test_an_answer_that_is_older(rig: Rig, log: Log, client: Client) -> None:
    """The next event is sent even if the log, on a replica, is behind."""
    rig.channel.begin()
    page = log.page(log.top.offset)
    rig.receive(events := log.add(2))
    assert rig.question() is not None
    rig.channel.answered(page, is_fill=True)
    assert client.take() == ids(events)


def test_too_much_to_be_held(rig: Rig, log: Log, client: Client) -> None:
    """Events that arrive while Redis does not answer are read from the log later."""
    rig.channel.begin()
    after = rig.question()
    assert after is not None
    page = log.page(after)
    events = [event for number in range(21) for event in log.add(1, f"{number} {'x' * 50_000}")]
    for event in events:
        rig.receive([event])
    rig.channel.answered(page, is_fill=True)
    rig.answer()
    assert client.take() == ids(events)


def test_too_much_to_be_held_without_history(rig: Rig, log: Log, client: Client) -> None:
    """Events that no log has are sent while Redis does not answer, once and in order."""
    rig.channel.begin()
    foreign: list[str] = []
    logged: list[Entry] = []
    for number in range(30):
        foreign.append(f"foreign-{number}")
        data = f"{number} {'x' * 50_000}"
        frame = f"event:foreign-{number}\ndata:{data}\n\n".encode()
        logged += log.add(1, f"logged {data}")
        rig.receive([Foreign(frame, data.encode()), logged[-1]])
    early = client.take()
    assert early
    rig.answer()
    # An event without an id leaves a client the id of the event before.
    found = [name.partition(" ")[0] for name in [*early, *client.take()]]
    assert [name for name in found if "foreign" in name] == foreign
    assert [name for name in found if "foreign" not in name] == ids(logged)


def test_too_much_to_be_held_before_the_first_answer(rig: Rig, log: Log) -> None:
    """No stream has begun, so none is sent anything; each begins in one place of the log."""
    client = rig.add()
    top = log.top
    for number in range(30):
        frame = b"event:foreign\ndata:%d\n\n" % number
        rig.receive([Foreign(frame, b"%d %b" % (number, b"x" * 50_000))])
    assert client.take() == []
    rig.answer()
    assert client.take()[0] == f"sse.open {top}"
    rig.receive(later := log.add(2))
    assert client.take() == ids(later)


def test_a_question_that_fails(rig: Rig, log: Log, client: Client) -> None:
    """It is asked again, for the channel and for its listeners."""
    missed = log.add(1)
    rig.channel.begin()
    assert rig.question() is not None
    rig.channel.failed(is_fill=True)
    rig.answer()
    assert client.take() == ids(missed)
    first = log.entries[0].position
    back = rig.add(first)
    assert rig.question(is_fill=False) is not None
    rig.channel.failed(is_fill=False)
    rig.answer()
    assert back.take() == [f"sse.open {first}", *ids(log.entries[1:])]


def test_a_page_that_goes_further(rig: Rig, log: Log, client: Client) -> None:
    """Events that live listeners have not received yet are not part of a page, and come once."""
    first = log.entries[0].position
    back = rig.add(first)
    later = log.add(2)
    rig.answer()
    rig.receive(later)
    assert back.take() == [f"sse.open {first}", *ids(log.entries[1:])]
    assert client.take() == ids(later)


def test_a_strict_listener(rig: Rig, log: Log) -> None:
    """It gets an error in place of a reset, live and when it comes back, and is dropped."""
    live = rig.join(is_strict=True)
    assert live.take() == [f"sse.open {log.top}"]
    rig.log = Log("new")
    rig.channel.begin()
    rig.answer()
    live.take()
    back = rig.join(log.top, is_strict=True)
    assert back.take() == []
    for client in (live, back):
        assert isinstance(client.follower.error, LookupError)
        assert client.follower.has_ended()
        assert client.follower in rig.lost


def latest(log: Log) -> list[str]:
    """Return the events for a client that joins a channel whose latest event is kept."""
    last = log.entries[-1]
    before = Position(log.epoch, last.position.offset - 1, last.previous)
    return [f"sse.open {before}", str(last.position)]


@pytest.mark.parametrize("is_older", [False, True])
def test_the_latest_event_after_a_reset(is_older: bool) -> None:
    """It comes after `sse.reset`, and a client that joins then gets it as well."""
    log = Log(length=1)
    log.add(3)
    snapshot = log.copy()
    rig = Rig(log, sends_latest=True)
    client = rig.join()
    assert client.take() == latest(log)
    if is_older:
        rig.receive(events := log.add(2))
        assert client.take() == ids(events)
        rig.log = log = snapshot
    else:
        log.add(2)
    rig.channel.begin()
    rig.answer()
    opening, newest = latest(log)
    assert client.take() == [opening.replace("open", "reset"), newest]
    assert rig.join().take() == latest(log)
    for wrong in (Position("other", 70, "a"), Position(log.epoch, 1, "a"), Position("", 0, "")):
        first, *rest = rig.join(wrong).take()
        assert first.startswith("sse.open")
        assert rest == [opening.replace("open", "reset"), newest]
    rig.receive(events := log.add())
    assert client.take() == ids(events)


def test_the_latest_of_the_events_before_the_first_answer() -> None:
    """Only the newest event is sent, without a reset."""
    log = Log(length=1)
    rig = Rig(log, sends_latest=True)
    client = rig.add()
    rig.receive(log.add(3))
    rig.answer()
    assert client.take() == latest(log)


def test_a_latest_event_that_is_not_kept_any_more() -> None:
    """Once it is gone from the log, because of SSE_HISTORY_TTL or otherwise, no client gets it."""
    log = Log(length=1)
    rig = Rig(log, sends_latest=True)
    rig.join()
    rig.receive(log.add())
    assert rig.join().take() == latest(log)
    log.entries = []
    rig.channel.compare()
    rig.answer()
    assert rig.join().take() == [f"sse.open {log.top}"]
    rig.receive(log.add())
    assert rig.join().take() == latest(log)


def test_what_breaks_the_silence(rig: Rig, log: Log, client: Client) -> None:
    """Foreign, malformed and old events do not delay the comparison with the log."""
    [known] = log.add()
    rig.receive([known])
    heard = rig.channel.heard
    rig.receive([known, Foreign(b"data:foreign\n\n", b"foreign")])
    rig.channel.arrived([])
    assert rig.channel.heard == heard
    rig.receive(log.add())
    assert rig.channel.heard > heard
    assert len(client.take()) == 3


def test_old_events_that_waited_for_an_answer(rig: Rig, log: Log, client: Client) -> None:
    """Events that the answer covers are not requested again; foreign events are sent."""
    text = "x" * 1000
    missed = [event for number in range(50) for event in log.add(1, f"{number} {text}")]
    waited = [event for number in range(50, 900) for event in log.add(1, f"{number} {text}")]
    foreign = Foreign(b"event:foreign\ndata:x\n\n", b"foreign")
    rig.receive([*waited[:100], foreign, *waited[100:]])
    asked = rig.questions
    rig.answer()
    assert rig.questions - asked < 10
    found = client.take()
    assert [name for name in found if " " not in name] == ids([*missed, *waited])
    assert len(found) == 901


def test_a_long_absence(rig: Rig, log: Log, client: Client) -> None:
    """Missed events are read page by page, until none are left."""
    missed = [event for number in range(20) for event in log.add(1, f"{number} {'x' * 50_000}")]
    rig.channel.begin()
    rig.answer()
    assert client.take() == ids(missed)
    assert rig.channel.position == log.top


def test_clients_that_know_more_than_the_hub(rig: Rig, log: Log, client: Client) -> None:
    """A client that comes from another process, with a later position, has the log compared."""
    missed = log.add(2)
    back = rig.join(log.top)
    assert back.take() == [f"sse.open {log.top}"]
    assert client.take() == ids(missed)
    snapshot = log.copy()
    rig.receive(log.add(1))
    rig.log = snapshot
    snapshot.add(1)
    assert rig.join(snapshot.top).take() == [f"sse.open {snapshot.top}"]
    assert client.take()[-1] == f"sse.reset {snapshot.top}"
    rig.log = Log("new")
    assert rig.join(rig.log.top).take() == [f"sse.open {rig.log.top}"]
    assert client.take() == [f"sse.reset {rig.log.top}"]
    assert rig.questions < 15


def test_clients_that_return_from_everywhere(rig: Rig, log: Log, client: Client) -> None:
    """Each gets the events after its own position, from the log or from memory."""
    rig.receive(log.add(3))
    for _ in range(2):
        for number, entry in enumerate(log.entries, 1):
            events = rig.join(entry.position).take()
            assert events == [f"sse.open {entry.position}", *ids(log.entries[number:])]
    rig.log = other = Log("other")
    other.add(6)
    strange = other.entries[2]
    rig.log = log
    assert rig.join(strange.position).take() == [
        f"sse.open {strange.position}",
        f"sse.reset {log.top}",
    ]
    assert len(client.take()) == 3


def test_the_newest_events_are_in_memory(rig: Rig, log: Log, client: Client) -> None:
    """A short absence causes no question, even if many events have been published."""
    events = [event for number in range(300) for event in log.add(1, f"{number} {'x' * 10_000}")]
    for event in events:
        rig.receive([event])
        client.take()
    asked = rig.questions
    position = events[-6].position
    assert rig.join(position).take() == [f"sse.open {position}", *ids(events[-5:])]
    assert rig.questions == asked


def test_a_connection_that_lags_when_its_page_comes(rig: Rig, log: Log) -> None:
    """The page is not added to waiting data, and comes later."""
    first = log.entries[0].position
    for number in range(20):
        log.add(1, f"{number} {'x' * 50_000}")
    server, browser = socket.socketpair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    server.setblocking(False)
    browser.setblocking(False)
    terms = Terms(b":\n", lambda: b"", 1000, lambda _: None)
    connection = Connection(
        server.detach(), b"", terms, chunked=False, callbacks=[], resume_after=first
    )
    parser = Parser()

    def drain() -> None:
        while connection.is_lagging:
            with contextlib.suppress(BlockingIOError):
                parser.feed(browser.recv(1 << 16))
            connection.flush()
        rig.channel.place(connection)

    with browser, closing(connection):
        rig.channel.add(connection)
        rig.channel.confirm()
        rig.answer()
        drain()
        connection.send(Batch((), b":%b\n" % (b"x" * 100_000)))
        assert connection.is_lagging
        rig.answer()
        assert not rig.lost
        while connection.is_behind:
            drain()
            rig.answer()
        with contextlib.suppress(BlockingIOError):
            parser.feed(browser.recv(1 << 20))
        assert [event.id for event in parser.events] == [str(first), *ids(log.entries[1:])]


def test_clients_that_keep_arriving(rig: Rig, log: Log, client: Client) -> None:
    """However old their ids are, a client that was there before gets its events."""
    log.page_bytes = 20_000
    missed = [event for number in range(900) for event in log.add(1, f"{number} {'x' * 1000}")]
    rig.channel.begin()
    rig.answer()
    oldest, middle = log.entries[0].position, missed[399].position
    back = rig.add(middle)
    arriving: list[Client] = []
    received: list[str] = []
    for _ in range(150):
        # It arrives before each question, and reads on until the third has arrived after it.
        arriving.append(rig.add(oldest))
        rig.answer_once()
        received += back.take()
        for other in arriving:
            other.take()
        if len(arriving) > 2:
            rig.channel.discard(arriving.pop(0).follower)
    assert received == [f"sse.open {middle}", *ids(missed[400:])]


def test_clients_take_turns(rig: Rig, log: Log, client: Client) -> None:
    """A client that can take one page after the other does not delay the next client."""
    log.page_bytes = 2000
    missed = [event for number in range(900) for event in log.add(1, f"{number} {'x' * 1000}")]
    rig.channel.begin()
    rig.answer()
    first, later = log.entries[0].position, missed[500].position
    server, browser = socket.socketpair()
    server.setblocking(False)
    parser = Parser()
    terms = Terms(b":\n", lambda: b"", LIMIT, lambda _: None)
    connection = Connection(
        server.detach(), b"", terms, chunked=False, callbacks=[], resume_after=first
    )
    with browser, closing(connection):
        rig.channel.add(connection)
        rig.channel.confirm()
        rig.answer_once()
        parser.feed(browser.recv(1 << 16))
        begun = offset(parser.events[-1].id)
        assert not connection.is_lagging
        back = rig.add(later)
        rig.answer_once()
        rig.answer_once()
        opening, *events = back.take()
        assert opening == f"sse.open {later}"
        assert events
        assert events == ids(missed[501 : 501 + len(events)])
        # The question was asked for both in turn.
        parser.feed(browser.recv(1 << 16))
        assert begun < offset(parser.events[-1].id) < later.offset


@pytest.mark.parametrize("is_descending", [False, True])
def test_clients_share_pages(rig: Rig, log: Log, client: Client, is_descending: bool) -> None:
    """Clients that return from everywhere need few questions, in whatever order they come."""
    log.page_bytes = 20_000
    missed = [event for number in range(900) for event in log.add(1, f"{number} {'x' * 1000}")]
    rig.channel.begin()
    rig.answer()
    before = rig.questions
    places = sorted(range(0, 800, 7), reverse=is_descending)
    back = [rig.add(missed[place].position) for place in places]
    for _ in range(200):
        rig.answer_once()
        # The second call tells the hub that the client has taken everything.
        events = [[*one.take(), *one.take()] for one in back]
        if not any(events):
            break
    assert rig.channel.lagging == 0
    pages = len(missed) // 20
    assert rig.questions - before < 3 * pages


def test_a_large_latest_event_after_a_reset() -> None:
    """It is sent even if there is little room in memory."""
    log = Log(length=1)
    rig = Rig(log, sends_latest=True)
    client = rig.join()
    assert client.take() == [f"sse.open {log.top}"]
    log.add(2, "x" * RING_BYTES)
    rig.channel.begin()
    rig.answer()
    opening, newest = latest(log)
    assert client.take() == [opening.replace("open", "reset"), newest]
    assert rig.join().take() == latest(log)


def test_a_hole_that_only_the_nonce_shows(rig: Rig, log: Log, client: Client) -> None:
    """An offset that comes next does not follow if the event before it is another one."""
    snapshot = log.copy()
    rig.receive(lost := log.add())
    rig.log = snapshot
    snapshot.add()
    rig.receive(snapshot.add())
    rig.answer()
    assert client.take() == [*ids(lost), f"sse.reset {snapshot.top}"]


def test_the_beginning_of_another_log() -> None:
    """All logs begin in the same way, but a client of another log has missed everything."""
    rig = Rig(Log())
    client = rig.join()
    rig.receive(events := rig.log.add(2))
    assert client.take() == ["sse.open e.0.0", *ids(events)]
    assert rig.join(Position("e", 0, "0")).take() == ["sse.open e.0.0", *ids(events)]
    assert rig.join(Position("other", 0, "0")).take() == [
        "sse.open other.0.0",
        f"sse.reset {rig.log.top}",
    ]


def test_a_client_that_is_slow(rig: Rig, log: Log, client: Client) -> None:
    """It gets the events that had no room, from its own position on, and is then live again."""
    slow = rig.join()
    slow.follower.limit = 1
    batches = [log.add(2) for _ in range(3)]
    for events in batches:
        rig.receive(events)
    assert slow.take() == [f"sse.open {log.entries[2].position}", *ids(log.entries[3:])]
    rig.receive(later := log.add(2))
    assert slow.take() == ids(later)
    assert len(client.take()) == 8


@pytest.mark.parametrize("missed", [0, 1, 4, 5])
def test_a_mark_of_a_recent_event(log: Log, missed: int) -> None:
    """A client that comes back with one soon gets what it has missed without a question."""
    rig = Rig(log)
    rig.join()
    start = log.top
    rig.receive(events := log.add(5))
    questions = rig.questions
    position = [start, *[event.position for event in events]][-1 - missed]
    follower = Follower(LIMIT, marks=[Mark.of(position)])
    bundle = Bundle([rig.channel])
    bundle.add(follower)
    assert rig.channel.confirm() == []
    frames = b"".join([batch.frames for batch in follower.take(timeout=0) or ()])
    assert b'"recovered": true' in frames
    assert frames.count(b"\n\n") == 1 + missed
    assert rig.questions == questions
    assert not rig.channel.lagging
    bundle.close()


# The end of the channel


def is_over(client: Client) -> bool:
    """Whether the stream has ended with its channel."""
    return client.follower.has_ended() and client.follower.reason == "end"


def the_end(end: Entry) -> str:
    """Return the event that ends a stream."""
    return f"sse.end {end.position}.end"


def test_an_end(rig: Rig, log: Log, client: Client) -> None:
    """It is the last event of a stream; those who come later start with the next event."""
    events, end, later = log.add(2), log.end(), log.add(2)
    rig.receive([*events, end, *later])
    assert client.take() == [*ids(events), the_end(end)]
    assert is_over(client)
    assert rig.lost == [client.follower]
    assert not rig.channel
    assert rig.join().take() == [f"sse.open {log.top}"]
    rig.receive(log.add())
    assert client.take() == []


def test_an_end_that_was_lost(rig: Rig, log: Log, client: Client) -> None:
    """It is read from the log, with what comes after it."""
    events, end = log.add(2), log.end()
    rig.receive(log.add(3)[2:])
    rig.answer()
    assert client.take() == [*ids(events), the_end(end)]
    assert rig.lost == [client.follower]


def test_an_end_among_held_events(rig: Rig, log: Log, client: Client) -> None:
    """Events that arrive while Redis is asked end the channel like others."""
    rig.channel.begin()
    page = rig.log.page(log.top.offset)
    events, end, later = log.add(), log.end(), log.add()
    rig.receive([*events, end, *later])
    assert rig.question() is not None
    rig.lost += rig.channel.answered(page, is_fill=True)
    assert client.take() == [*ids(events), the_end(end)]
    assert rig.lost == [client.follower]


def test_an_end_for_a_client_that_is_slow(rig: Rig, log: Log, client: Client) -> None:
    """It gets the end when it has taken the events before, although others have begun anew."""
    slow = rig.join()
    slow.follower.limit = 1
    events = log.add(4)
    for event in events:
        rig.receive([event])
    rig.receive([end := log.end()])
    assert is_over(client)
    assert not is_over(slow)
    rig.receive(log.add(2))
    rig.answer()
    assert slow.take() == [f"sse.open {log.entries[2].position}", *ids(events), the_end(end)]
    assert is_over(slow)
    assert rig.lost == [client.follower, slow.follower]


@pytest.mark.parametrize("has_client", [False, True])
def test_a_client_that_comes_after_the_end(rig: Rig, log: Log, has_client: bool) -> None:
    """It gets the events since the end before, whether or not the channel has other clients."""
    first = log.end()
    events, end = log.add(3), log.end()
    if has_client:
        other = rig.join(log.entries[0].position)
        assert other.take()[-1] == the_end(first)
        other = rig.add(Position("other", 1, "x"))
    client = rig.join()
    assert client.take() == [f"sse.open {first.position}", *ids(events), the_end(end)]
    assert is_over(client)
    assert client.follower in rig.lost
    assert not rig.channel


def test_a_client_that_comes_after_the_end_of_a_trimmed_log(log: Log) -> None:
    """It starts with the oldest event that is kept, and misses nothing that it was promised."""
    log.length = 2
    events, end = log.add(3)[1:], log.end()
    client = Rig(log).join()
    assert client.take() == [f"sse.open {events[0].before}", *ids(events), the_end(end)]


def test_a_client_that_comes_after_the_end_has_expired(rig: Rig, log: Log) -> None:
    """The channel is like a new one; for a process that knew of the end, it is over."""
    slow = rig.join()
    slow.follower.limit = 1
    rig.receive(log.add())
    rig.receive([end := log.end()])
    log.entries = []
    client = rig.join()
    assert client.take() == [f"sse.open {end.position}", the_end(end)]
    assert is_over(client)
    late = Rig(log).join()
    assert late.take() == [f"sse.open {end.position}"]
    assert not is_over(late)


def test_clients_that_resume_after_the_end(rig: Rig, log: Log) -> None:
    """Each gets the end that comes next; with the position of the last one, it comes again."""
    known = log.entries[1].position
    last, end = log.entries[2], log.end()
    later, other = log.add(2), log.end()
    for cursor, expected in {
        known: [str(last.position), the_end(end)],
        last.position: [the_end(end)],
        end.position: [*ids(later), the_end(other)],
        later[1].position: [the_end(other)],
        other.position: [the_end(other)],
    }.items():
        client = rig.join(cursor)
        assert client.take() == [f"sse.open {cursor}", *expected]
        assert is_over(client)
    assert not rig.channel


def test_a_client_that_resumes_after_an_end_and_before_the_next(rig: Rig, log: Log) -> None:
    """As long as the channel is open again, it is live."""
    end, events = log.end(), log.add(2)
    client = rig.join(end.position)
    assert client.take() == [f"sse.open {end.position}", *ids(events)]
    rig.receive(more := log.add())
    rig.receive([other := log.end()])
    assert client.take() == [*ids(more), the_end(other)]


@pytest.mark.parametrize("cursor", [Position("other", 1, "x"), Position("", 0, "")])
def test_a_client_with_a_wrong_id_after_the_end(rig: Rig, log: Log, cursor: Position) -> None:
    """It is told that it may have missed events, and then that there will be no others."""
    end = log.end()
    client = rig.join(cursor)
    first, *rest = client.take()
    assert first.startswith("sse.open")
    assert rest == [f"sse.reset {end.position}", the_end(end)]
    assert is_over(client)


def test_a_log_that_is_replaced_by_one_that_has_ended(rig: Rig, client: Client) -> None:
    """Live clients are told both."""
    rig.log = log = Log("new")
    log.add(2)
    end = log.end()
    rig.channel.begin()
    rig.answer()
    assert client.take() == [f"sse.reset {end.position}", the_end(end)]
    assert is_over(client)


def test_an_end_after_the_latest_event(log: Log) -> None:
    """A client that comes later, or has a wrong id, gets that event before the end."""
    log = Log(length=1)
    log.add(2)
    rig = Rig(log, sends_latest=True)
    client = rig.join()
    (opening, newest), end = latest(log), log.end()
    rig.receive([end])
    assert client.take() == [opening, newest, the_end(end)]
    assert rig.join().take() == [opening, newest, the_end(end)]
    wrong = rig.join(Position("other", 1, "x"))
    reset = opening.replace("open", "reset")
    assert wrong.take()[1:] == [reset, newest, the_end(end)]
    assert len(rig.lost) == 3
    rig.log = log = Log("new", length=1)
    live = Rig(log, sends_latest=True)
    client = live.join()
    live.log = log = Log("newer", length=1)
    log.add()
    opening, newest = latest(log)
    end = log.end()
    live.channel.begin()
    live.answer()
    assert client.take()[1:] == [opening.replace("open", "reset"), newest, the_end(end)]


@pytest.mark.parametrize("chunked", [False, True])
def test_an_end_for_a_connection(rig: Rig, log: Log, chunked: bool) -> None:
    """What its socket does not accept at once is sent before it is closed."""
    server, browser = socket.socketpair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    server.setblocking(False)
    terms = Terms(b":\n", lambda: b"", 1000, lambda _: None)
    connection = Connection(server.detach(), b"", terms, chunked=chunked, callbacks=[])
    with browser, closing(connection):
        rig.channel.add(connection)
        rig.channel.confirm()
        rig.answer()
        (event,) = log.add(1, "x" * 100_000)
        rig.receive([event, log.end(), *log.add()])
        assert rig.lost == [connection]
        assert connection.is_finishing
        assert connection.reason == "end"
        assert not rig.channel
        received = b""
        while connection.is_lagging:
            received += browser.recv(1 << 16)
            connection.flush()
        assert not connection.is_finishing
        connection.close()
        while piece := browser.recv(1 << 16):
            received += piece
        assert received.endswith(b".end\n\n" + (b"\r\n0\r\n\r\n" if chunked else b""))
        assert received.count(b"event:sse.end") == 1


def test_an_end_for_a_connection_that_is_gone(rig: Rig, log: Log) -> None:
    """Its stream has ended because the client has left."""
    server, browser = socket.socketpair()
    server.setblocking(False)
    terms = Terms(b":\n", lambda: b"", 1000, lambda _: None)
    connection = Connection(server.detach(), b"", terms, chunked=True, callbacks=[])
    with closing(connection):
        rig.channel.add(connection)
        rig.channel.confirm()
        rig.answer()
        browser.close()
        rig.receive([log.end()])
        assert rig.lost == [connection]
        assert connection.is_gone
        assert not connection.is_finishing
        assert connection.reason == "client"
