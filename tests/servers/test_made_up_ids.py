"""Ids that clients have made up, for streams of several channels: they are harmless."""

import random
import re
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote, urlencode

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.redis_server import RedisServer
from tests.support.servers import Site

_SETTINGS: Final = {"SSE_HISTORY": {"plain-*": 0, "*": 1000}}
# By default, gunicorn itself would refuse some of these.
_OPTIONS: Final = (
    *("--worker-class", "gevent"),
    *("--limit-request-line", "0", "--limit-request-field_size", "200000"),
)
_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._"


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a redis-server whose commands are counted."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def site(own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a site that opens streams of several channels."""
    settings = {"REDIS_URL": own_redis.url, **_SETTINGS}
    folder = tmp_path_factory.mktemp("site")
    with servers.gunicorn(
        folder, *_OPTIONS, app="tests.apps.several:app", settings=settings
    ) as site:
        yield site


class Lab:
    """Two channels, the clients' own, and a third one with a client that is always there."""

    def __init__(self, site: Site, server: RedisServer, name: str) -> None:
        self.site = site
        self.server = server
        self.own = [f"{name}-a", f"{name}-b", f"plain-{name}"]
        self.secret = f"{name}-secret"
        self.published = 0
        self.standing = StreamClient(site.port, path=self.path([*self.own, self.secret]))
        self.standing.open().wait_events(1)
        self.publish()
        self.fresh = self.position(self.own)
        self.foreign = self.position([self.secret])
        self.publish()

    def path(self, channels: list[str], last_id: str = "") -> str:
        """Return the path of a stream."""
        query = [("channel", channel) for channel in channels]
        return f"/streams?{urlencode([*query, ('last_event_id', last_id)])}"

    def position(self, channels: list[str]) -> str:
        """Return a real id."""
        return self.site.get(f"/position?{urlencode([('channel', one) for one in channels])}")

    def publish(self) -> None:
        """Publish an event on each channel, and wait until it has come."""
        wanted = len(self.standing.events) + 1 + len(self.own)
        for channel in [self.secret, *self.own]:
            self.site.publish(f"{channel} {self.published}", channel)
        self.published += 1
        self.standing.wait_events(wanted)

    def reads(self) -> int:
        """Return how often logs have been read or written since the last call."""
        stats = self.server.admin.info("commandstats")
        self.server.admin.config_resetstat()
        return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))

    def check(self, last_id: str, *, in_header: bool = False, ended: str = "") -> list[str]:
        """Connect with an id; return the types of the first events.

        :param ended: The channel that has ended, according to this id.
        """
        self.reads()
        headers = f"Last-Event-ID: {last_id}\r\n" if in_header else ""
        path = self.path(self.own, "" if in_header else last_id)
        with StreamClient(self.site.port, path=path, headers=headers) as client:
            client.read_headers()
            if client.status == 204:
                return []
            client.open().wait_events(1)
            self.publish()
            last = f"{self.own[-1]} {self.published - 1}"
            while client.events[-1].data != last:
                client.wait_events(len(client.events) + 1)
            # Three of the four events that were published have been added to a log.
            assert self.reads() - 3 <= 2, "a log was read more than once"
            types = [event.type for event in client.events]
            assert types[0] == "sse.open"
            assert types.count("sse.open") == 1
            for event in client.events:
                assert self.secret not in event.data
            data = [event.data for event in client.events if event.type == "message"]
            self.check_order(data, [channel for channel in self.own if channel != ended])
            return types[: types.index("message")]

    def check_order(self, data: list[str], channels: list[str]) -> None:
        """Check that each channel's events come once, in order, and up to the last one."""
        assert {one.split()[0] for one in data} == {*channels}
        for channel in channels:
            numbers = [int(one.split()[1]) for one in data if one.split()[0] == channel]
            assert numbers == [*range(numbers[0], self.published)]

    def close(self) -> None:
        """Close the standing client, and look at the server's log."""
        self.standing.close()
        log = self.site.log()
        assert "Traceback" not in log
        assert "ERROR" not in log


@pytest.fixture
def lab(site: Site, own_redis: RedisServer, channel: str) -> Iterator[Lab]:
    """Return the channels."""
    lab = Lab(site, own_redis, channel)
    yield lab
    lab.close()


def _entries(last_id: str) -> tuple[str, list[str]]:
    salt, *entries = last_id.split("-")
    return salt, entries


def _with_entries(last_id: str, change: Callable[[list[str]], list[str]]) -> str:
    salt, entries = _entries(last_id)
    return "-".join([salt, *change(entries)])


def _swapped(entries: list[str]) -> list[str]:
    first, second = entries
    return [first[:5] + second[5:], second[:5] + first[5:]]


MADE_UP: Final[dict[str, Callable[[str, str], str]]] = {
    "no id": lambda own, _: own.partition("-")[0],
    "no entries": lambda own, _: f"{own[0]}-",
    "only dashes": lambda own, _: "-" * 10_000,
    "another salt": lambda own, _: f"{int(own[0]) % 9 + 1}{own[1:]}",
    "no salt": lambda own, _: f"0{own[1:]}",
    "cut": lambda own, _: own[:-1],
    "extended": lambda own, _: f"{own}A",
    "a foreign key": lambda own, foreign: own + foreign[1:],
    "a foreign key alone": lambda _, foreign: foreign,
    "a foreign value": lambda own, foreign: _with_entries(
        own, lambda entries: [entry[:5] + _entries(foreign)[1][0][5:] for entry in entries]
    ),
    "swapped values": lambda own, _: _with_entries(own, _swapped),
    "doubled entries": lambda own, _: _with_entries(own, lambda entries: entries * 2),
    "two values": lambda own, _: _with_entries(
        own, lambda entries: [*entries, entries[0][:5] + entries[1][5:]]
    ),
    "a foreign end": lambda own, foreign: own + foreign[1:7],
    "the future": lambda own, _: _with_entries(
        own, lambda entries: [entry[:5] + "......." + entry[-7:] for entry in entries]
    ),
    "the near future": lambda own, _: _with_entries(
        own, lambda entries: [entry[:5] + "BA" + entry[-7:] for entry in entries]
    ),
    "the beginning": lambda own, _: _with_entries(
        own, lambda entries: [entry[:5] + entry[-7:] for entry in entries]
    ),
    "64 entries": lambda own, _: own + "".join(f"-{_DIGITS[n]}AAAABAAAAAAA" for n in range(62)),
    "65 entries": lambda own, _: own + "".join(f"-{_DIGITS[n]}AAAABAAAAAAA" for n in range(63)),
    "10,000 entries": lambda own, _: "1" + "-AAAAABAAAAAAA" * 10_000,
    "10,000 empty entries": lambda own, _: "1" + "-" * 10_000,
    "10,000 ends": lambda own, _: "1" + "-AAAAA" * 10_000,
    "a long entry": lambda own, _: own + "A" * 100_000,
    "a position": lambda own, _: "0123456789abcdefx0.1.5d41402abc",
    "a long position": lambda own, _: f"0123456789abcdefx0.{'9' * 14}.5d41402abc",
    "other digits": lambda own, _: re.sub("[0-9]", "٣", own),
    "spaces": lambda own, _: f" {own} ",
    "text": lambda own, _: "%s{}\\'\"<b>;DROP",
}


@pytest.mark.parametrize("name", MADE_UP)
@pytest.mark.parametrize("in_header", [True, False], ids=["header", "query"])
def test_a_made_up_id(lab: Lab, name: str, in_header: bool) -> None:
    """It opens a stream of its channels, with resets, and reads each log once at most."""
    last_id = MADE_UP[name](lab.fresh, lab.foreign)
    if in_header:
        last_id = quote(last_id, safe="%{}\\'\"<>; ")
    types = lab.check(last_id, in_header=in_header)
    assert {*types} <= {"sse.open", "sse.reset"}
    assert len(types) <= 3


def test_control_characters(lab: Lab) -> None:
    """They can be only in a query."""
    for character in "\0\n\r\t\x7f\x80\u2028\ud7ff\U0001f980":
        lab.check(lab.fresh.replace("-", character))
        lab.check(lab.fresh + character)


def test_the_end_of_everything(lab: Lab) -> None:
    """A client that claims to have seen the end of each channel is told not to come back."""
    ends = _with_entries(lab.fresh, lambda entries: [entry[:5] for entry in entries])
    lab.own.pop()
    assert lab.check(ends) == []


def test_the_end_of_a_channel_that_has_not_ended(lab: Lab) -> None:
    """Whoever claims to have seen it gets nothing more of this channel."""
    for index, channel in enumerate(lab.own[:2]):
        entries = _entries(lab.fresh)[1]
        keys = {entry[:5] for entry in entries}
        [key] = keys & {_entries(lab.position([channel]))[1][0][:5]}
        end = lab.fresh.replace(next(one for one in entries if one[:5] == key), key)
        assert "sse.reset" not in lab.check(end, ended=channel), index


@pytest.mark.parametrize("number", [15, pytest.param(400, marks=pytest.mark.long)])
def test_random_changes(lab: Lab, number: int) -> None:
    """A real id in which some characters have been replaced, added, removed or moved."""
    chance = random.Random(17)
    for _ in range(number):
        characters = [*lab.fresh]
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(characters))
            match chance.randrange(4):
                case 0:
                    characters[place] = chance.choice(f"{_DIGITS}-")
                case 1:
                    characters.insert(place, chance.choice(f"{_DIGITS}-"))
                case 2:
                    del characters[place]
                case _:
                    characters[place:place] = characters[: chance.randint(1, 20)]
        lab.check("".join(characters))
