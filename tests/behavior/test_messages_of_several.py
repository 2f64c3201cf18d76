"""`history.messages` of several channels: order, ids from which to continue, and gaps."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, Final

import pytest
from flask import Flask

from flask_sse import Message, history, sse, streams
from flask_sse.history import ChannelMessage
from flask_sse.streams import position
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until

MakeApp = Callable[..., Flask]
MOST: Final = 50
SHORT: Final = 3


@pytest.fixture(autouse=True)
def app(make_app: MakeApp, any_redis_url: str) -> Iterator[Flask]:
    """Use an application with two kinds of history, on each kind of Redis."""
    histories = {"channel-*": 100, "short-*": SHORT, "latest-*": "latest"}
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY=histories)
    with app.app_context():
        yield app


@pytest.fixture
def names(channel: str) -> list[str]:
    """Return the names of three channels."""
    return [f"{channel}.{letter}" for letter in "abc"]


def publish(names: Sequence[str], numbers: Sequence[int]) -> None:
    """Publish each number to the next channel."""
    for number in numbers:
        sse.publish(number, channel=names[number % len(names)])


def take(channels: Sequence[str], after: str, number: int) -> list[ChannelMessage]:
    """Return some messages after an id."""
    with closing(history.messages(channels, after=after)) as messages:
        return [*islice(messages, number)]


def data(messages: Sequence[ChannelMessage]) -> dict[str, list[Any]]:
    """Return the data of messages, by channel."""
    found: dict[str, list[Any]] = {}
    for message in messages:
        found.setdefault(message.channel, []).append(message.data)
    return found


def test_continue_after_any_message(names: list[str]) -> None:
    """A consumer that continues after any message gets what follows it, exactly."""
    first = position(names)
    publish(names, range(12))
    with closing(history.messages(names, after=first)) as messages:
        found = [*islice(messages, 12)]
        publish(names, range(12, 18))
        found += islice(messages, 6)
    wanted = {name: [*range(index, 18, 3)] for index, name in enumerate(names)}
    assert data(found) == wanted
    for count, message in enumerate(found[:-1], 1):
        rest = take(names, str(message.id), 18 - count)
        assert data([*found[:count], *rest]) == wanted
    assert take(names[::-1], str(found[11].id), 6) != []
    assert str(found[-1].id) == position(names)


def test_a_consumer_that_waits(names: list[str]) -> None:
    """A message of any channel wakes the consumer."""
    found: list[ChannelMessage] = []
    wanted = [*names, *names]

    def hear() -> None:
        for message in islice(messages, len(wanted)):
            found.append(message)

    def has_heard(number: int) -> bool:
        return len(found) == number

    with closing(history.messages(names, after=position(names))) as messages:
        listener = threading.Thread(target=hear, daemon=True)
        listener.start()
        for number, name in enumerate(wanted, 1):
            sse.publish(number, channel=name)
            wait_until(partial(has_heard, number), "it has heard it")
        listener.join(PATIENCE)
    assert [message.channel for message in found] == wanted


def test_a_consumer_that_is_slow(make_app: MakeApp, any_redis_url: str, names: list[str]) -> None:
    """Messages above the limit are read from the logs, and none of any channel is lost."""
    app = make_app(REDIS_URL=any_redis_url, SSE_HISTORY=2000, SSE_MAX_PENDING=500)
    with app.app_context():
        first = position(names)
        publish(names, range(90))
        with closing(history.messages(names, after=first)) as messages:
            found = [next(messages)]
            publish(names, range(90, 300))
            found += islice(messages, 299)
            publish(names, range(300, 306))
            found += islice(messages, 6)
    assert data(found) == {name: [*range(index, 306, 3)] for index, name in enumerate(names)}


def test_other_channels(names: list[str]) -> None:
    """An id may be from other channels: a new one begins with what is published from now on."""
    one, two, new = names
    first = position([one, two])
    publish(names, range(6))
    with closing(history.messages([new, two], after=first)) as messages:
        assert data([*islice(messages, 2)]) == {two: [1, 4]}
        sse.publish("x", channel=new)
        last = next(messages)
        assert last == Message("x", id=last.id)
    assert str(last.id) == position([new, two])
    assert data(take([one], first, 2)) == {one: [0, 3]}


def test_one_channel(names: list[str]) -> None:
    """Several channels may be one, and then continue after an id of this channel alone."""
    name = names[0]
    first = history.position(name)
    sse.publish("x", channel=name)
    [message] = take([name], first, 1)
    assert message.id == position([name])
    assert isinstance(message, ChannelMessage)
    with closing(history.messages(name, after=first)) as messages:
        assert type(next(messages)) is Message


def test_the_newest_event(channel: str) -> None:
    """Without an id, a channel with the newest event begins with it, and the others do not."""
    latest, other = f"latest-{channel}", channel
    for name in (latest, other):
        sse.publish(name, channel=name)
    with closing(history.messages([other, latest])) as messages:
        assert next(messages).data == latest
        sse.publish("x", channel=other)
        assert next(messages).data == "x"


def test_the_end_of_a_channel(names: list[str]) -> None:
    """The others continue, also after an id that knows the end, and then the last one ends."""
    names = names[:2]
    one, other = names
    first = position(names)
    sse.publish("last", channel=one)
    streams.end(one)
    with closing(history.messages(names, after=first)) as messages:
        assert next(messages).data == "last"
        sse.publish("x", channel=other)
        message = next(messages)
        assert (message.channel, message.data) == (other, "x")
    sse.publish("again", channel=one)
    sse.publish("y", channel=other)
    streams.end(other)
    messages = history.messages(names, after=str(message.id))
    assert data([*messages]) == {other: ["y"]}
    messages = history.messages(names, after=first)
    assert data([*messages]) == {one: ["last"], other: ["x", "y"]}


def test_a_gap(channel: str) -> None:
    """If messages of one channel may be missing, the error names it, and the generator ends."""
    whole, short = channel, f"short-{channel}"
    first = position([whole, short])
    for number in range(SHORT + 1):
        sse.publish(number, channel=short)
    messages = history.messages([whole, short], after=first)
    with pytest.raises(LookupError, match=f"channel '{short}': events may be missing: the log no"):
        next(messages)
    assert [*messages] == []


def test_an_event_without_a_position(
    make_app: MakeApp, shared_redis: RedisServer, names: list[str]
) -> None:
    """An event from another publisher has no id, and the next one has the position of all."""
    app = make_app(REDIS_URL=shared_redis.url, SSE_HISTORY=10)
    with app.app_context(), closing(history.messages(names, after=position(names))) as messages:
        sse.publish(0, channel=names[0])
        assert next(messages).data == 0
        shared_redis.admin.publish(names[1], '{"data": 1, "id": 7}')
        assert next(messages).to_dict() == {"data": 1}
        sse.publish(2, channel=names[2])
        assert next(messages).id == position(names)


def test_one_subscription(make_app: MakeApp, redis_server: RedisServer, names: list[str]) -> None:
    """All channels have one connection to Redis, and none when the generator is closed."""
    admin: Any = redis_server.admin
    with make_app(REDIS_URL=redis_server.url, SSE_HISTORY=10).app_context():
        first = position(names)
        publish(names, range(3))
        with closing(history.messages(iter([*names, *names]), after=first)) as messages:
            assert data([*islice(messages, 3)]) == {
                name: [index] for index, name in enumerate(names)
            }
            [subscription] = admin.client_list(_type="pubsub")
            assert subscription["sub"] == "3"
    wait_until(lambda: not admin.pubsub_channels(), "nobody listens")


def test_names_of_channels(channel: str) -> None:
    """A name may be bytes, like elsewhere; bytes are one channel."""
    given: Any = [channel.encode()]
    first = position([channel])
    sse.publish("x", channel=channel)
    assert take(given, first, 1)[0].channel == channel
    with closing(history.messages(given[0], after=history.position(channel))) as messages:
        sse.publish("y", channel=channel)
        assert type(next(messages)) is Message


@pytest.mark.parametrize("any_redis_url", ["memory://"])
@pytest.mark.parametrize(
    ("channels", "error"),
    [
        ([], "at least one channel"),
        (["channel-x", "sse"], "channel 'sse' has no history"),
        ([f"channel-{number}" for number in range(MOST + 1)], "at most 50 channels"),
    ],
    ids=["none", "without history", "too many"],
)
def test_wrong_channels(channels: Sequence[str], error: str) -> None:
    """Channels that can't be followed are refused at once."""
    with pytest.raises(ValueError, match=error):
        history.messages(channels)


@pytest.mark.parametrize("any_redis_url", ["memory://"])
def test_wrong_types(channel: str) -> None:
    """Names that are no text are refused at once."""
    wrong: Any
    for wrong in ([None], [[channel]], None):
        with pytest.raises(TypeError, match="channel must be a str"):
            history.messages(wrong)


@pytest.mark.parametrize("any_redis_url", ["memory://"])
def test_wrong_ids(names: list[str]) -> None:
    """An id that is from no such messages is refused at once."""
    for wrong in ("", "42", history.position(names[0])):
        with pytest.raises(ValueError, match="after must be an id"):
            history.messages(names, after=wrong)
    with pytest.raises(ValueError, match="after must be"):
        history.messages(names[0], after=position(names))
