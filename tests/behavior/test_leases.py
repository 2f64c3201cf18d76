"""Leases in Redis: what several processes tell it, and what it does when it has lost something."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pytest
import redis
from flask import Flask

from flask_sse import sse
from flask_sse._presence.registrar import Announcement, Registrar
from flask_sse._presence.room import Times
from flask_sse._redis import lease_commands
from flask_sse._redis.lease_commands import Streams
from flask_sse._redis.publisher import Publisher
from flask_sse._redis.scripts import Call, Script, Scripts
from flask_sse._state import State
from tests.support.waiting import wait_until

LONG: Final = Times(lease=60.0, renewal=20.0, absence=0.0, farewell=8.0)
SHORT: Final = LONG._replace(lease=0.2)


class Line(Scripts):
    """The way to Redis, on which answers can be lost."""

    def __init__(self, scripts: Scripts) -> None:
        self.scripts = scripts
        self.loses_answers = False
        self.is_cut = False
        self.calls = 0

    def run(self, call: Call) -> object:
        """Run a script."""
        return self.scripts.run(call)

    def run_all(self, calls: Sequence[Call]) -> Sequence[object]:
        """Run a script, if the line is not cut, and lose the answer, or not."""
        if self.is_cut:
            raise redis.ConnectionError("cut")
        self.calls += len(calls)
        replies = self.scripts.run_all(calls)
        if self.loses_answers:
            raise redis.TimeoutError("lost")
        return replies


class Process:
    """A process without streams, and the events that it publishes."""

    def __init__(self, name: str, line: Line, times: Times = LONG) -> None:
        self.line = line
        self.events: list[tuple[str, str]] = []
        self.registrar = Registrar(name, line, self._note, times)

    def enter(self, channel: bytes, *clients: str) -> "Process":
        """Let clients come."""
        for client in clients:
            self.registrar.enter(channel, client)
        return self.work()

    def leave(self, channel: bytes, *clients: str, is_expected: bool = False) -> "Process":
        """Let clients go."""
        for client in clients:
            self.registrar.leave(channel, client, is_expected=is_expected)
        return self.work()

    def work(self) -> "Process":
        """Do what is due."""
        while not self.registrar.is_idle and not self.registrar.pause():
            self.registrar.work()
        return self

    def take(self) -> list[tuple[str, str]]:
        """Return the events since the last call."""
        events, self.events = self.events, []
        return events

    def _note(self, announcement: Announcement) -> None:
        self.events.append((announcement.type, announcement.client))


Make = Callable[..., Process]


@pytest.fixture
def publisher(any_redis_url: str) -> Iterator[Publisher]:
    """Return a publisher for each kind of Redis."""
    app = Flask("tests")
    app.config["REDIS_URL"] = any_redis_url
    app.register_blueprint(sse, url_prefix="/stream")
    with app.app_context():
        state = State.current()
        yield state.publisher_for(state.source())


@pytest.fixture
def make(publisher: Publisher) -> Make:
    """Return a function that makes processes."""
    return lambda name, times=LONG: Process(name, Line(publisher), times)


@pytest.fixture
def name(channel: str) -> bytes:
    """Return the name of a channel in Redis."""
    return f"lease-{channel}".encode()


def members(publisher: Publisher, name: bytes) -> dict[bytes, int]:
    """Return how many streams each member has."""
    found = lease_commands.parse_members(publisher.run(lease_commands.members(name)))
    return {client: streams.number for client, streams in found.items()}


def forget(publisher: Publisher, name: bytes) -> None:
    """Make Redis forget the members of a channel, as if it had been restarted."""
    publisher.run(Call(Script(b"redis.call('DEL', KEYS[1])"), name, key_of(name)))


def key_of(name: bytes) -> bytes:
    """Return the key of a channel."""
    return lease_commands.key(name)


def exists(publisher: Publisher, name: bytes) -> object:
    """Return how long the key will live in milliseconds, or a negative number."""
    script = Script(b"return redis.call('PTTL', KEYS[1])")
    return publisher.run(Call(script, name, key_of(name)))


def test_the_first_and_the_last(make: Make, publisher: Publisher, name: bytes) -> None:
    """The process with the first stream announces the join, the one with the last the leave."""
    one, two = make("one"), make("two")
    assert one.enter(name, "alice").take() == [("sse.join", "alice")]
    assert two.enter(name, "alice", "alice", "bob").take() == [("sse.join", "bob")]
    assert members(publisher, name) == {b"alice": 3, b"bob": 1}
    assert one.leave(name, "alice").take() == []
    assert members(publisher, name) == {b"alice": 2, b"bob": 1}
    two.leave(name, "alice", "bob", "alice")
    assert two.take() == [("sse.leave", "alice"), ("sse.leave", "bob")]
    assert members(publisher, name) == {}
    assert exists(publisher, name) == -2


def test_the_server_ends_a_stream(make: Make, publisher: Publisher, name: bytes) -> None:
    """Its client has longer to come back than one that has gone, and leaves after that time."""
    one = make("one", LONG._replace(reconnection=0.2)).enter(name, "alice", "bob")
    other = make("other").enter(name, "carol")
    one.take()
    other.take()
    one.leave(name, "alice", is_expected=True).leave(name, "bob")
    other.leave(name, "carol", is_expected=True)
    assert one.take() == [("sse.leave", "bob")]
    wait_until(lambda: one.work().events, "the client has not come back in time")
    assert one.take() == [("sse.leave", "alice")]
    assert members(publisher, name) == {b"carol": 1}
    other.enter(name, "carol")
    assert other.take() == []


def test_the_time_of_joining_moves_along(make: Make, publisher: Publisher, name: bytes) -> None:
    """A member that goes from one process to another has joined in the first one."""
    one, two = make("one"), make("two")
    one.enter(name, "alice")
    before = publisher.run(lease_commands.members(name))
    two.enter(name, "alice")
    one.leave(name, "alice")
    after = lease_commands.parse_members(publisher.run(lease_commands.members(name)))
    assert after == {b"alice": Streams(lease_commands.parse_members(before)[b"alice"].since, 1)}


def test_many_members(make: Make, publisher: Publisher, name: bytes) -> None:
    """They are told in parts, and each once."""
    process = make("one")
    clients = [f"user-{number}" for number in range(1234)]
    assert process.enter(name, *clients).take() == [("sse.join", client) for client in clients]
    assert process.line.calls == 3
    assert len(members(publisher, name)) == 1234
    process.leave(name, *clients)
    assert sorted(process.take()) == sorted(("sse.leave", client) for client in clients)
    assert exists(publisher, name) == -2


def test_many_channels(make: Make, publisher: Publisher, name: bytes) -> None:
    """All are told, in a cluster on each node."""
    process = make("one")
    names = [b"%b-%d" % (name, number) for number in range(600)]
    for one in names:
        process.registrar.enter(one, "alice")
    process.work()
    assert process.take() == [("sse.join", "alice")] * 600
    assert all(members(publisher, one) == {b"alice": 1} for one in names)


def test_a_process_dies(make: Make, publisher: Publisher, name: bytes) -> None:
    """Another one says that its members have left, unless they are elsewhere too."""
    dead, alive = make("dead", SHORT), make("alive")
    dead.enter(name, "alice", "bob")
    alive.enter(name, "bob", "carol")
    alive.take()
    assert alive.registrar.pause() < 1
    wait_until(lambda: alive.work().events, "it has looked")
    assert alive.take() == [("sse.leave", "alice")]
    assert members(publisher, name) == {b"bob": 1, b"carol": 1}


def test_a_member_of_a_dead_process_comes_back(
    make: Make, publisher: Publisher, name: bytes
) -> None:
    """If nobody has said that it has left, nobody says that it has come, or has left."""
    dead, alive = make("dead", SHORT), make("alive")
    alive.enter(name, "bob")
    dead.enter(name, "alice")
    before = lease_commands.parse_members(publisher.run(lease_commands.members(name)))
    wait_until(lambda: members(publisher, name) == {b"bob": 1}, "it is not a member")
    assert make("new").enter(name, "alice", "carol").take() == [("sse.join", "carol")]
    after = lease_commands.parse_members(publisher.run(lease_commands.members(name)))
    assert after[b"alice"] == before[b"alice"]
    alive.take()
    assert alive.work().take() == []


def test_the_dead_are_not_members(make: Make, publisher: Publisher, name: bytes) -> None:
    """Nobody needs to look for that: the key is gone with the last lease."""
    make("dead", SHORT).enter(name, "alice")
    wait_until(lambda: not members(publisher, name), "it is not a member")
    wait_until(lambda: exists(publisher, name) == -2, "the key is gone")


def test_a_process_was_thought_dead(make: Make, publisher: Publisher, name: bytes) -> None:
    """If others have said that its members have left, it says that they are back."""
    frozen, alive = make("frozen", SHORT), make("alive")
    frozen.enter(name, "alice", "bob")
    alive.enter(name, "bob")
    wait_until(lambda: alive.work().events, "it has looked")
    assert alive.take() == [("sse.leave", "alice")]
    frozen.take()
    frozen.enter(name, "carol")
    assert sorted(frozen.take()) == [("sse.join", "alice"), ("sse.join", "carol")]
    assert members(publisher, name) == {b"alice": 1, b"bob": 2, b"carol": 1}


def test_redis_has_lost_everything(make: Make, publisher: Publisher, name: bytes) -> None:
    """With their next command, all processes tell it everything again, and nobody has joined."""
    one, two = make("one"), make("two")
    one.enter(name, "alice", "bob", "dora").take()
    two.enter(name, "bob", "carol").take()
    forget(publisher, name)
    assert one.enter(name, "erik").take() == [("sse.join", "erik")]
    two.enter(name, "zoe").take()
    assert members(publisher, name) == {b"alice": 1, b"bob": 2, b"carol": 1, b"dora": 1} | {
        b"erik": 1,
        b"zoe": 1,
    }
    assert one.leave(name, "alice", "bob").take() == [("sse.leave", "alice")]


def test_a_member_leaves_a_redis_that_has_lost_it(
    make: Make, publisher: Publisher, name: bytes
) -> None:
    """Others hear of it when all processes have told what they know, unless it is elsewhere."""
    one, two = (make(process, LONG._replace(renewal=1.5)) for process in ("one", "two"))
    one.enter(name, "alice", "bob", "carol").take()
    two.enter(name, "bob", "zoe").take()
    forget(publisher, name)
    assert one.leave(name, "alice", "bob").take() == []
    two.work()
    wait_until(lambda: two.work() and one.work() and one.events, "it is told")
    wait_until(lambda: members(publisher, name)[b"bob"] == 1, "the other has told")
    assert one.take() + two.take() == [("sse.leave", "alice")]
    forget(publisher, name)
    assert one.leave(name, "carol").take() == []
    wait_until(lambda: two.work() and one.work() and one.events, "it is told")
    assert one.take() == [("sse.leave", "carol")]
    assert one.registrar.is_idle
    wait_until(lambda: two.work() and members(publisher, name) == {b"bob": 1, b"zoe": 1}, "told")


def test_redis_has_lost_the_last_changes(make: Make, publisher: Publisher, name: bytes) -> None:
    """A replica that takes over lacks them: who has left is removed, and who has come is added."""
    one, two = make("one"), make("two")
    two.enter(name, "zoe").take()
    one.enter(name, "alice", "bob").take()
    script = Script(b"return redis.call('HGETALL', KEYS[1])")
    found = publisher.run(Call(script, name, key_of(name)))
    assert isinstance(found, list)
    assert one.leave(name, "alice").take() == [("sse.leave", "alice")]
    assert one.enter(name, "carol").take() == [("sse.join", "carol")]
    script = Script(b"redis.call('DEL', KEYS[1]); redis.call('HSET', KEYS[1], unpack(ARGV))")
    publisher.run(Call(script, name, key_of(name), found))
    assert members(publisher, name) == {b"alice": 1, b"bob": 1, b"zoe": 1}
    assert one.enter(name, "dora").take() == [("sse.join", "dora"), ("sse.leave", "alice")]
    assert members(publisher, name) == {b"bob": 1, b"carol": 1, b"dora": 1, b"zoe": 1}


def test_an_answer_is_lost(make: Make, publisher: Publisher, name: bytes) -> None:
    """The same is told again, and the events are published once."""
    process, other = make("one"), make("two")
    other.enter(name, "zoe")
    process.enter(name, "stays").take()
    process.line.loses_answers = True
    assert process.enter(name, "alice", "zoe").take() == []
    assert members(publisher, name) == {b"alice": 1, b"stays": 1, b"zoe": 2}
    process.line.loses_answers = False
    wait_until(lambda: process.work().events, "it tries again")
    assert process.take() == [("sse.join", "alice")]
    process.line.loses_answers = True
    assert process.leave(name, "alice", "zoe").take() == []
    process.line.loses_answers = False
    wait_until(lambda: process.work().events, "it tries again")
    assert process.take() == [("sse.leave", "alice")]
    assert members(publisher, name) == {b"stays": 1, b"zoe": 1}


def test_the_last_answer_is_lost(make: Make, publisher: Publisher, name: bytes) -> None:
    """A process that has no members any more announces the last one later."""
    process = make("one", LONG._replace(renewal=0.5))
    process.enter(name, "alice").take()
    process.line.loses_answers = True
    process.leave(name, "alice")
    process.line.loses_answers = False
    wait_until(lambda: process.work().events, "it tries again")
    assert process.take() == [("sse.leave", "alice")]
    assert process.registrar.is_idle
    assert exists(publisher, name) == -2


def test_redis_is_away(make: Make, publisher: Publisher, name: bytes) -> None:
    """What has happened in the meantime is told when it is back."""
    process = make("one")
    process.enter(name, "alice").take()
    process.line.is_cut = True
    process.enter(name, "bob", "carol").leave(name, "alice", "carol")
    process.line.is_cut = False
    wait_until(lambda: len(process.work().events) == 2, "it tries again")
    assert sorted(process.take()) == [("sse.join", "bob"), ("sse.leave", "alice")]
    assert members(publisher, name) == {b"bob": 1}


def test_a_process_stops(make: Make, publisher: Publisher, name: bytes) -> None:
    """Its members stay for a few seconds, in which they can come back elsewhere."""
    times = LONG._replace(farewell=0.5)
    stopping, new = make("old", times), make("new")
    stopping.enter(name, "alice", "bob").registrar.say_farewell()
    assert members(publisher, name) == {b"alice": 1, b"bob": 1}
    assert new.enter(name, "alice").take() == []
    wait_until(lambda: new.work().events, "it has looked")
    assert new.take() == [("sse.leave", "bob")]
    assert members(publisher, name) == {b"alice": 1}


@pytest.mark.parametrize("client", ["-", "a 1 2;", "ü✓", " ", "x" * 256, "\udcff", "one"])
def test_names(make: Make, publisher: Publisher, name: bytes, client: str) -> None:
    """Any text can be the name of a client."""
    process, other = make("one"), make("two")
    other.enter(name, "zoe")
    assert process.enter(name, client).take() == [("sse.join", client)]
    assert client.encode(errors="surrogatepass") in members(publisher, name)
    assert process.leave(name, client).take() == [("sse.leave", client)]
    assert members(publisher, name) == {b"zoe": 1}
