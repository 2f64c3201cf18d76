"""What Redis holds of a log, when it expires, and what happens if others write to it.

`EXPIRE` takes the place of waiting: a log whose key has an hour left has expired.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import fakeredis
import pytest
import redis
from flask import Flask
from redis.crc import key_slot

from flask_sse import history, sse
from flask_sse._log import ending
from flask_sse._log.position import OFFSET_AT_TOP, OFFSET_BEFORE_LAST, Position
from flask_sse._redis import log_commands
from flask_sse._redis.log_commands import NewEntry, Range
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

MakeApp = Callable[..., Flask]
AN_HOUR: Final = 3600
A_WEEK: Final = 604_800
UNUSED: Final = 600
SECONDS: Final = 50
"""For how long events are kept."""


class Log:
    """The log of a channel."""

    def __init__(self, client: redis.Redis, channel: bytes, length: int = 100) -> None:
        self.client: Any = client
        self.channel = channel
        self.key = log_commands.key(channel)
        self.length = length
        self.epoch = log_commands.new_epoch(0)

    def add(self, *numbers: int) -> None:
        """Publish some numbers."""
        for number in numbers:
            event = NewEntry(b'{"data": %d, "id": "' % number, b'"}', self.length, SECONDS)
            log_commands.append(self.client, self.channel, event)

    def end(self) -> int:
        """End the channel."""
        event = NewEntry(*ending.split_payload(self.channel), self.length, SECONDS)
        return log_commands.append(self.client, self.channel, event)

    def run(self, command: str, *more: str, is_end: bool = False) -> None:
        """Run a command, which has its own nonce, to publish an event once more."""
        epoch = f"{command:0>10}{self.epoch[10:]}"
        payload = (b'{"data": 7, "id": "', b'"}')
        if is_end:
            payload = ending.split_payload(self.channel)
        log_commands.append_once(
            self.client, self.key, self.channel, epoch, self.length, SECONDS, *payload, *more
        )

    def read(self, after: int) -> Range:
        """Read a page of the log."""
        command = log_commands.read_command(self.channel, after, 0)
        encoded = [part.encode() if isinstance(part, str) else part for part in command]
        return log_commands.parse_range(self.client.execute_command(*encoded))

    def offsets(self, after: int = 0) -> list[int]:
        """Return the offsets of the entries after an offset."""
        return [entry.position.offset for entry in self.read(after).entries]

    @property
    def top(self) -> Position:
        """The newest position."""
        return log_commands.newest_position(self.client, self.channel)

    @property
    def seconds(self) -> int:
        """For how many seconds Redis keeps the key."""
        return int(self.client.ttl(self.key))

    @property
    def kind(self) -> str:
        """The type of the key."""
        kind: bytes = self.client.type(self.key)
        return kind.decode()

    def expire(self, seconds: int = AN_HOUR) -> None:
        """Let time pass until Redis keeps the key for *seconds* only."""
        assert self.client.expire(self.key, seconds)


@pytest.fixture(params=["redis", "memory"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """Return a client of each kind of Redis."""
    if request.param == "memory":
        found: redis.Redis = fakeredis.FakeRedis()
    else:
        server: RedisServer = request.getfixturevalue("shared_redis")
        # The threads of earlier tests may still read logs in the first database, which makes keys.
        found = redis.Redis(port=server.port, db=1)
    yield found
    found.close()


@pytest.fixture
def log(client: redis.Redis, channel: str) -> Log:
    """Return a log of 100 events on each kind of Redis."""
    return Log(client, channel.encode())


@pytest.fixture
def redis_log(shared_redis: RedisServer, channel: str) -> Log:
    """Return a log on a real Redis: commands are repeated only if there is a network."""
    return Log(shared_redis.admin, channel.encode())


def is_in(seconds: int, most: int) -> bool:
    """Whether an expiry has just been set to *most* seconds."""
    return most - 60 < seconds <= most


# The key


@pytest.mark.parametrize(
    "name",
    [b"", b"}", b"{", b"{}x", b"x}", b"a{b}c", b"a b", b"\xff", b"x" * 300, b"{%b}" % (b"y" * 300)],
)
def test_odd_channels(client: redis.Redis, name: bytes) -> None:
    """Each channel has one key, where Redis Cluster has the channel."""
    before: Any = {*client.keys()}
    log = Log(client, name)
    start = log.top
    log.add(1, 2)
    assert {*client.keys()} - before == {log.key}
    assert key_slot(log.key) == key_slot(name)
    assert log.top.epoch == start.epoch
    assert log.offsets() == [1, 2]


def test_a_channel_that_is_only_read(log: Log) -> None:
    """It takes few bytes for ten minutes; reading it renews them, and it keeps its epoch."""
    start = log.top
    assert (start.offset, start.nonce) == (0, "0")
    assert log.kind == "string"
    assert is_in(log.seconds, UNUSED)
    assert log.offsets() == log.offsets(OFFSET_BEFORE_LAST) == []
    log.expire(9)
    assert log.top == start
    assert is_in(log.seconds, UNUSED)
    log.add(1)
    assert log.top.epoch == start.epoch
    [entry] = log.read(0).entries
    assert entry.previous == "0"


# The expiry


def test_events_that_expire(log: Log) -> None:
    """They are gone at once, and their place is kept for a week."""
    log.add(1, 2, 3)
    top = log.top
    assert is_in(log.seconds, SECONDS + AN_HOUR)
    log.expire(AN_HOUR + 60)
    assert log.offsets() == [1, 2, 3]
    log.expire()
    assert log.read(0) == log.read(1) == log.read(OFFSET_BEFORE_LAST) == Range(top, [])
    assert log.kind == "string"
    assert is_in(log.seconds, A_WEEK)
    log.expire(9)
    assert log.top == top
    assert is_in(log.seconds, UNUSED)
    log.add(4)
    assert log.offsets() == [4]
    [entry] = log.read(3).entries
    assert (entry.position.epoch, entry.previous) == (top.epoch, top.nonce)


def test_expired_events_that_nobody_has_read(log: Log) -> None:
    """A new event does not bring them back."""
    log.add(1, 2, 3)
    log.expire()
    log.add(4)
    assert log.offsets() == [4]
    assert log.client.xlen(log.key) == 1
    assert is_in(log.seconds, SECONDS + AN_HOUR)


def test_a_log_that_is_gone(log: Log) -> None:
    """The next one has another epoch."""
    log.add(1)
    top = log.top
    log.client.delete(log.key)
    assert log.top.epoch != top.epoch


def test_time_that_passes(make_app: MakeApp, redis_url: str, channel: str) -> None:
    """Events expire by themselves, and a client is told that it has missed them."""
    app = make_app(REDIS_URL=redis_url, SSE_HISTORY=100, SSE_HISTORY_TTL=1)
    with app.app_context():
        start = history.position(channel)
        sse.publish("x", channel=channel)
        top = history.position(channel)

        def is_gone() -> bool:
            assert history.position(channel) == top
            return bool(sse.redis.type(log_commands.key(channel.encode())) == b"string")

        wait_until(is_gone, "the event has expired")
        with pytest.raises(LookupError, match="may be missing"):
            next(history.messages(channel, after=start))
        messages = history.messages(channel, after=top)
        sse.publish("y", channel=channel)
        assert next(messages).data == "y"
        messages.close()


def test_a_setting_that_changes(log: Log, make_app: MakeApp, shared_redis: RedisServer) -> None:
    """The last event was published with the setting that counts, also if the next is shorter."""
    name = log.channel.decode()
    log = Log(shared_redis.admin, log.channel)
    log.add(1)
    app = make_app(REDIS_URL=shared_redis.url, SSE_HISTORY=100, SSE_HISTORY_TTL=100_000)
    with app.app_context():
        assert history.position(name) == str(log.top)
        assert is_in(log.seconds, SECONDS + AN_HOUR)
        sse.publish(2, channel=name)
        assert is_in(log.seconds, 100_000 + AN_HOUR)
    log.add(3)
    assert is_in(log.seconds, SECONDS + AN_HOUR)
    assert log.offsets() == [1, 2, 3]


def test_a_key_that_does_not_expire(log: Log) -> None:
    """After PERSIST, a log is kept until the next event is published."""
    start = log.top
    log.client.persist(log.key)
    assert log.top == start
    assert log.seconds == -1
    log.add(1, 2)
    log.client.persist(log.key)
    assert log.offsets() == [1, 2]
    assert log.seconds == -1
    log.add(3)
    assert log.offsets() == [1, 2, 3]
    assert is_in(log.seconds, SECONDS + AN_HOUR)


def test_a_snapshot(redis_server: RedisServer) -> None:
    """What expires while Redis is away has expired when it comes back."""
    log, other = Log(redis_server.admin, b"x"), Log(redis_server.admin, b"other")
    log.add(1, 2)
    other.add(1, 2)
    top = log.top
    log.client.pexpire(log.key, AN_HOUR * 1000 + 50)
    log.client.save()
    redis_server.crash()
    redis_server.start()
    log, other = Log(redis_server.admin, b"x"), Log(redis_server.admin, b"other")
    wait_until(lambda: log.client.pttl(log.key) <= AN_HOUR * 1000, "the events have expired")
    assert log.read(0) == Range(top, [])
    assert other.offsets() == [1, 2]


def test_the_latest_event(make_app: MakeApp, redis_url: str, channel: str) -> None:
    """Once it has expired, clients no longer get it."""
    app = make_app(REDIS_URL=redis_url, SSE_HISTORY={"*": "latest"})
    query = {"channel": channel}
    with app.app_context():
        sse.publish("x", channel=channel)
        top = history.position(channel)
        sse.redis.expire(log_commands.key(channel.encode()), AN_HOUR)
        assert history.position(channel) == top
    with app.test_client().get("/stream", query_string=query) as response:
        pieces = b""
        for piece in response.iter_encoded():
            pieces += piece
            if b"sse.open" in pieces:
                with app.app_context():
                    sse.publish("y", channel=channel)
            if b"data:y" in pieces:
                break
    assert b"data:x" not in pieces


# The end of a channel


def test_an_end(log: Log) -> None:
    """Every answer says that the channel has ended, until something is published."""
    log.add(1, 2)
    assert log.read(0).ends_after is None
    log.end()
    for after in (0, 1, 3, OFFSET_AT_TOP):
        assert log.read(after).ends_after == 0
    log.add(3)
    assert log.offsets() == [1, 2, 3, 4]
    assert log.read(0).ends_after is None
    log.add(4)
    log.end()
    assert log.read(0).ends_after == 3
    ends = [ending.find_end(entry.payload) for entry in log.read(0).entries]
    assert ends == [None, None, 0, None, None, 3]


def test_ends_and_repeated_commands(redis_log: Log) -> None:
    """What is kept of the two has its place in each entry."""
    redis_log.length = 1
    redis_log.end()
    redis_log.run("a")
    redis_log.run("b")
    redis_log.add(1)
    redis_log.run("c", "again")
    redis_log.end()
    assert redis_log.read(OFFSET_AT_TOP).ends_after == 1
    top = redis_log.top
    for command in "abc":
        redis_log.run(command, "again")
    redis_log.run("c")
    assert redis_log.top == top


def test_an_end_of_a_channel_that_has_ended(log: Log) -> None:
    """Nothing happens; after another event, there is another end."""
    log.end()
    log.end()
    assert log.offsets() == [1]
    log.add(1)
    log.end()
    assert log.offsets() == [1, 2, 3]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_an_end_takes_the_place_of_no_event(log: Log, length: int) -> None:
    """As many events are kept as without it."""
    log.length = length
    log.add(*range(10))
    log.end()
    assert log.offsets() == [*range(11 - length, 12)]
    log.add(11)
    assert log.offsets() == [*range(13 - length, 13)]


def test_the_newest_event_before_an_end(log: Log) -> None:
    """Clients that get the newest event get it although the channel has ended."""
    log.add(1, 2, 3)
    assert log.offsets(OFFSET_BEFORE_LAST) == [3]
    log.end()
    assert log.offsets(OFFSET_BEFORE_LAST) == [3, 4]


def test_an_end_that_expires(log: Log) -> None:
    """Then the channel is like a new one, which can be ended."""
    log.add(1)
    log.end()
    log.expire()
    assert log.read(0) == Range(log.top, [])
    log.end()
    assert log.offsets() == [3]
    log.expire()
    log.end()
    assert log.offsets() == [4]
    assert log.read(0).ends_after == 0


@pytest.mark.parametrize("length", [1, 5, 100])
@pytest.mark.parametrize("others", [0, 1, 3])
def test_an_end_that_is_repeated(redis_log: Log, length: int, others: int) -> None:
    """It ends the channel once, also if others have published in the meantime."""
    redis_log.length = length
    redis_log.run("a")
    redis_log.run("b", is_end=True)
    redis_log.add(*range(others))
    top = redis_log.top
    redis_log.run("b", "again", is_end=True)
    assert redis_log.top == top


# Repeated commands


@pytest.mark.parametrize("length", [1, 5, 100])
@pytest.mark.parametrize("is_read", [False, True])
def test_a_repetition_after_the_expiry(redis_log: Log, length: int, is_read: bool) -> None:
    """It is recognized if it is the newest, and also if others came after it and were read."""
    redis_log.length = length
    redis_log.run("a")
    if length < 32 or is_read:
        redis_log.add(1)
    redis_log.expire()
    if is_read:
        assert redis_log.offsets() == []
    top = redis_log.top.offset
    redis_log.run("a", "again")
    assert redis_log.top.offset == top


@pytest.mark.parametrize("length", [1, 5, 100])
def test_an_original_after_the_expiry(redis_log: Log, length: int) -> None:
    """A command that comes after its repetition is known for a long time."""
    redis_log.length = length
    redis_log.run("a", "again")
    redis_log.add(2)
    redis_log.expire()
    assert redis_log.offsets() == []
    redis_log.add(3)
    redis_log.expire()
    redis_log.add(4)
    redis_log.run("a")
    assert redis_log.top.offset == 4
    redis_log.run("b")
    assert redis_log.top.offset == 5


@pytest.mark.parametrize(("last", "expected"), [(100_001, 100_001), (100_002, 100_003)])
def test_a_repetition_long_ago(redis_log: Log, last: int, expected: int) -> None:
    """After 100,000 events it is forgotten, so that it does not make all later events larger."""
    redis_log.run("a", "again")
    fields = redis_log.client.xrevrange(redis_log.key, count=1)[0][1]
    assert fields[b"late"] == b" 000000000a 1"
    text = f"{redis_log.top.epoch} {last} {'c' * 10}  000000000a 1"
    redis_log.client.set(redis_log.key, text)
    redis_log.run("a")
    assert redis_log.top.offset == expected
    redis_log.add(1)
    [(_, fields)] = redis_log.client.xrevrange(redis_log.key, count=1)
    assert (b"late" in fields) == (last == expected)


def test_what_a_long_log_contains(log: Log) -> None:
    """There is nothing for repetitions in it."""
    log.add(*range(40))
    assert all(b"late" not in fields for _, fields in log.client.xrange(log.key))


@pytest.mark.parametrize("length", [1, 2, 7, 16, 31])
def test_what_a_short_log_contains(log: Log, length: int) -> None:
    """One of its entries has the nonces of earlier ones, so that 32 commands can be recognized."""
    log.length = length
    nonces: list[bytes] = []
    for number in range(80):
        log.add(number)
        entries = log.client.xrange(log.key)
        nonces.append(entries[-1][1][b"nonce"])
        late = [fields[b"late"] for _, fields in entries if fields.get(b"late", b"0") != b"0"]
        assert len(late) == (number >= length - 1 and number > 0)
        known = b"".join([*late, *(fields[b"nonce"] for _, fields in entries)])
        assert len(known) <= (31 + length) * 10 + 1
        assert all(nonce in known for nonce in nonces[-32:])


def test_a_short_log_that_is_repeated_at_any_time(redis_log: Log) -> None:
    """Each of the last 32 commands is recognized, also after the log has expired."""
    redis_log.length = 5
    commands = [f"{number:x}" for number in range(1, 51)]
    for number, command in enumerate(commands, 1):
        redis_log.run(command)
        if number % 9 == 0:
            redis_log.expire()
        if number % 18 == 0:
            assert redis_log.offsets() == []
        for earlier in commands[max(number - 32, 0) : number]:
            redis_log.run(earlier, "again")
        assert redis_log.top.offset == number


# Others that write to the key


def others() -> Sequence[tuple[str, Callable[[Log], object]]]:
    """Return what others may do to a log, with a name."""
    return (
        ("XADD", lambda log: log.client.xadd(log.key, {"foreign": 1})),
        ("XADD, next", lambda log: log.client.xadd(log.key, {"foreign": 1}, id="4-0")),
        ("SET", lambda log: log.client.set(log.key, "foreign")),
        ("XDEL", lambda log: log.client.xdel(log.key, "3-0")),
        ("XTRIM", lambda log: log.client.xtrim(log.key, maxlen=0)),
        ("DEL", lambda log: log.client.delete(log.key)),
    )


@pytest.mark.parametrize("length", [5, 100])
@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("change", [pytest.param(act, id=name) for name, act in others()])
def test_a_log_that_others_have_changed(
    log: Log, change: Callable[[Log], object], is_read: bool, length: int
) -> None:
    """Events can be published as before, and clients learn that they may have missed some."""
    log.length = length
    log.add(1, 2, 3)
    top = log.top
    change(log)
    if is_read:
        page = log.read(0)
        assert page.top.epoch != top.epoch or page.top.offset < top.offset
    log.add(4, 5)
    page = log.read(0)
    newest = [entry.payload[:10] for entry in page.entries[-2:]]
    assert newest == [b'{"data": 4', b'{"data": 5']
    # In `memory://`, the id of an entry that was deleted can be used again.
    assert top not in [entry.position for entry in page.entries]
    assert page.top == log.top
    assert is_in(log.seconds, SECONDS + AN_HOUR)


def test_a_key_of_another_type(log: Log) -> None:
    """Neither reading nor publishing replaces it, and the error says what is wrong."""
    log.client.rpush(log.key, "foreign")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        log.add(1)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        log.read(0)
    assert log.kind == "list"


@pytest.mark.parametrize("state", ["unused", "used", "expired", "expired and read"])
def test_a_redis_that_is_full(redis_server: RedisServer, state: str) -> None:
    """Publishing raises an error, and the log stays what it is."""
    log = Log(redis_server.admin, b"x")
    top = log.top
    if state != "unused":
        log.add(1, 2)
        top = log.top
    if "expired" in state:
        log.expire()
    if "read" in state:
        assert log.top == top
    log.client.config_set("maxmemory", 1)
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        log.add(3)
    log.client.config_set("maxmemory", 0)
    assert log.top == top
    log.add(3)
    assert log.top.epoch == top.epoch
    assert log.top.offset == top.offset + 1


# Permissions


def test_a_user_who_may_do_only_this(shared_redis: RedisServer, channel: str) -> None:
    """The commands that the error message lists are enough, and all are needed."""
    admin = shared_redis.admin
    client = redis.Redis(port=shared_redis.port, username="scripts", password="secret")
    text = str(log_commands.explain(redis.ResponseError("")))
    inside = text.partition("scripts ")[2].partition(", on keys")[0].replace(" and ", ", ")
    names = ["EVAL", "EVALSHA", *inside.replace(" (in a cluster, SPUBLISH)", "").split(", ")]
    assert len(names) == 13
    rules = [f"+{name.lower()}" for name in names]
    user = ("ACL", "SETUSER", "scripts", "on", ">secret", "~flask-sse:*", "&*")
    admin.execute_command(*user, "+client", "+hello", "+select", *rules)
    log = Log(client, channel.encode())
    assert log.top.offset == 0
    log.add(1, 2)
    log.run("a", "again")
    log.run("a", "again")
    assert log.offsets() == [1, 2, 3]
    Log(admin, log.channel).expire()
    assert log.offsets() == []
    client.close()
