"""The guarantee for streams of several channels as a model, with any faults in any order.

The clients get their streams from two processes of a site, through gunicorn's own code or from a
thread that reads, and keep their last id as browsers do. The events of each channel are numbered.
For each channel, a client's id stands for the number that must come next, or for the first and
the last one that may: a client without a position begins between two publishes.
"""

import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

import pytest
import redis
from flask import Flask, Response, request
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flask_sse import sse, streams
from flask_sse._hub import log_queries
from flask_sse._redis import failover, log_commands
from flask_sse._redis.pubsub import Arrival, Delivered, PubSubConnection
from flask_sse._state import State
from tests.support.event_sources import PATH, EventSource
from tests.support.parser import Event
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until

KEPT: Final = 300
LOGGED: Final = 5
LATEST: Final = 1
PLAIN: Final = 2
MOST_CLIENTS: Final = 6
TEXT: Final = "x" * 3000

_names = itertools.count()


class LossyConnection(PubSubConnection):
    """A subscription that silently loses events, as a proxy may."""

    all: ClassVar[list["LossyConnection"]] = []
    to_lose = 0

    def read(self, limit: int) -> list[Arrival]:
        """Return what Redis has sent, but for some events."""
        if self not in self.all:
            self.all.append(self)
        arrivals: list[Arrival] = []
        for arrival in super().read(limit):
            if isinstance(arrival, Delivered) and self.to_lose > 0:
                self.to_lose -= 1
            else:
                arrivals.append(arrival)
        return arrivals


class Channel:
    """A channel in the model."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_latest = name.startswith("latest")
        self.is_logged = self.is_latest or name.startswith("log")
        self.losses = 0
        """How often events of the log have been lost."""
        self.losses_before: list[int] = []
        """For each event, how often that had been when it was published."""
        self.ends: set[int] = set()
        """The events that are ends of the channel."""
        self.has_ended = False

    @property
    def number(self) -> int:
        """The number of the next event."""
        return len(self.losses_before)

    def note_event(self) -> None:
        """Note that an event has been published, or an end."""
        self.losses_before.append(self.losses)
        # The log is trimmed from now on.
        self.losses += self.is_logged and self.number > KEPT


@dataclass
class Place:
    """Where a client is in one channel."""

    first: int
    """The least number that may come next."""
    last: int | None
    """The greatest number that may come next; `None` if any may be missing."""
    losses: int
    """How many losses of the log the client has certainly been told of."""
    is_over: bool = False
    """Whether the client has seen the channel's end."""


class Visited(NamedTuple):
    """An id that a client has had, and where it was then."""

    last_id: str
    places: dict[str, Place]


_NEVER: Final = Visited("", {})


class Client:
    """A client and what may come next in each of its channels."""

    def __init__(self, source: EventSource, places: dict[str, Place], user: str) -> None:
        self.source = source
        self.user = user
        self.places = places
        """Where the client's last id says that it is, in the channels with history."""
        self.plain: dict[str, Place] = {}
        """Where it is in the channels without, on this connection."""
        self.has_opened = False
        self.to_reset: set[str] = set()

    def __repr__(self) -> str:
        return f"<Client {self.source} {self.has_opened} {self.places} {self.plain}>"

    def begin(self) -> None:
        """Forget what is known of the last connection."""
        self.has_opened = False
        self.to_reset = set()
        self.plain = {}


class ChannelsMachine(RuleBasedStateMachine):
    """Two processes, a Redis that loses and forgets, and clients that come and go."""

    url: ClassVar[str]
    tally: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        number = next(_names)
        kinds = ["log"] * LOGGED + ["latest"] * LATEST + ["plain"] * PLAIN
        names = [f"{kind}-{number}-{index}" for index, kind in enumerate(kinds)]
        self.channels = {name: Channel(name) for name in names}
        self.names = names
        self.clients: list[Client] = []
        self.numbers = itertools.count()
        self.visited = [_NEVER]
        self.is_lossy = False
        """Whether events of channels without history may have been lost."""
        LossyConnection.all.clear()
        self.apps = [self._make_app() for _ in range(self.processes)]
        self.tally["examples"] += 1

    @property
    def processes(self) -> int:
        """How many processes the site has; an embedded Redis is only for one."""
        return 1 if self.url == "memory://" else 2

    def _make_app(self) -> Flask:
        app = Flask("tests")
        app.config.update(
            REDIS_URL=self.url,
            SSE_HISTORY={"log-*": KEPT, "latest-*": "latest"},
            SSE_KEEPALIVE=600,
            SSE_MAX_PENDING=1 << 14,
        )
        app.register_blueprint(sse, url_prefix="/stream")

        @app.get(PATH)
        def several() -> Response:
            return streams.stream(
                request.args.getlist("channel"),
                client=request.args.get("client"),
                max_age=request.args.get("max_age", type=float),
            )

        return app

    # What another machine has in place of one Redis

    def admin_of(self, channel: Channel) -> redis.StrictRedis:
        """Return a client for what happens to the log of a channel."""
        with self.apps[0].app_context():
            return sse.redis

    def flush(self) -> None:
        """Delete all logs."""
        with self.apps[0].app_context():
            sse.redis.flushall()

    def kill_subscriptions(self) -> None:
        """Close the connections of all subscriptions; an embedded Redis has none."""
        if self.url != "memory://":
            with self.apps[0].app_context():
                sse.redis.client_kill_filter(_type="pubsub")

    @initialize(masks=st.tuples(st.integers(1, 255), st.integers(1, 255)))
    def begin(self, masks: tuple[int, int]) -> None:
        """Begin with a client of each kind."""
        self._add(0, self._choose(masks[0]), is_read=True)
        self._add(1, self._choose(masks[1]), is_read=False)

    @precondition(lambda self: len(self.clients) < MOST_CLIENTS)
    @rule(mask=st.integers(1, 255), app=st.integers(0, 1), is_read=st.booleans())
    def connect(self, mask: int, app: int, is_read: bool) -> None:
        """A client comes, without a position."""
        self._add(app, self._choose(mask), is_read=is_read)

    @precondition(lambda self: len(self.clients) < MOST_CLIENTS)
    @rule(
        back=st.integers(0, 200),
        mask=st.integers(1, 255),
        app=st.integers(0, 1),
        is_read=st.booleans(),
    )
    def come_back_later(self, back: int, mask: int, app: int, is_read: bool) -> None:
        """A client comes with an id that it has had before, perhaps for other channels."""
        visited = self.visited[-1 - back % len(self.visited)]
        self._add(app, self._choose(mask), is_read=is_read, visited=visited)

    @precondition(lambda self: len(self.clients) > 1)
    @rule(number=st.integers(0, MOST_CLIENTS))
    def leave(self, number: int) -> None:
        """A client leaves for good."""
        client = self.clients.pop(number % len(self.clients))
        self._receive(client)
        client.source.close()

    @rule(
        index=st.integers(0, LOGGED + LATEST + PLAIN - 1),
        number=st.sampled_from([1, 1, 1, 2, 5, 40]),
        is_large=st.booleans(),
    )
    def publish(self, index: int, number: int, is_large: bool) -> None:
        """Publish some events on a channel."""
        for _ in range(number):
            self.publish_to(self.names[index], TEXT * (number > 5) + TEXT * 30 * is_large)
            is_large = False

    @rule(number=st.integers(1, 4))
    def publish_everywhere(self, number: int) -> None:
        """Publish on all channels in turn."""
        for _ in range(number):
            for name in self.names:
                self.publish_to(name)

    @rule(
        number=st.integers(0, MOST_CLIENTS),
        after=st.integers(0, 1500),
        published=st.integers(0, 3),
    )
    def cut(self, number: int, after: int, published: int) -> None:
        """A connection is cut, at any byte of what comes next."""
        client = self.clients[number % len(self.clients)]
        client.source.bytes_left = after
        self.publish_everywhere(published)

    @rule(
        number=st.integers(0, MOST_CLIENTS),
        mask=st.integers(1, 255),
        app=st.integers(0, 1),
        after=st.none() | st.integers(0, 1500),
    )
    def change_channels(self, number: int, mask: int, app: int, after: int | None) -> None:
        """A client opens another stream with its last id, whose beginning may be cut, too."""
        client = self.clients[number % len(self.clients)]
        self._receive(client)
        self._reconnect(client, app, self._choose(mask))
        client.source.bytes_left = after

    @rule(index=st.integers(0, LOGGED + LATEST - 1))
    def end(self, index: int) -> None:
        """A channel ends, until something is published to it."""
        channel = self.channels[self.names[index]]
        with self.apps[0].app_context():
            streams.end(channel.name)
        if not channel.has_ended:
            channel.ends.add(channel.number)
            channel.note_event()
        channel.has_ended = True

    @precondition(lambda self: self.clients)
    @rule(number=st.integers(0, MOST_CLIENTS))
    def disconnect(self, number: int) -> None:
        """The streams of a user end, if Redis does not lose the message that says so."""
        self._lose_no_more()
        client = self.clients[number % len(self.clients)]
        if not client.user:
            return
        affected = {
            one: one.source.connections
            for one in self.clients
            if one.user == client.user and one.source.has_begun and not one.source.is_paused
        }
        with self.apps[0].app_context():
            streams.disconnect(client=client.user)

        def are_back() -> bool:
            self._receive_all()
            return all(
                one.source.connections > before or one.source.is_over
                for one, before in affected.items()
            )

        self._wait(are_back, f"the streams of {client.user} have ended")

    @rule(number=st.integers(0, MOST_CLIENTS))
    def stall(self, number: int) -> None:
        """A client stops reading."""
        self.is_lossy = True
        self.clients[number % len(self.clients)].source.pause(pausing=True)

    @rule(number=st.integers(0, MOST_CLIENTS))
    def go_on(self, number: int) -> None:
        """A client reads again."""
        self.clients[number % len(self.clients)].source.pause(pausing=False)

    @rule(
        fault=st.sampled_from(["trim", "log", "everything", "subscriptions", "events"]),
        index=st.integers(0, LOGGED + LATEST - 1),
        number=st.integers(1, 10),
    )
    def lose(self, fault: str, index: int, number: int) -> None:
        """Redis loses something, with all connections open, or the connections themselves."""
        channel = self.channels[self.names[index]]
        match fault:
            case "trim":
                self._trim(channel, number)
            case "log":
                channel.losses += 1
                channel.has_ended = False
                self.admin_of(channel).delete(self._key(channel))
            case "everything":
                for one in self.channels.values():
                    one.losses += 1
                    one.has_ended = False
                self.flush()
            case "subscriptions":
                self.is_lossy = True
                self.kill_subscriptions()
            case _:
                self.is_lossy = True
                for connection in [*LossyConnection.all]:
                    connection.to_lose = number

    @rule()
    def settle(self) -> None:
        """All clients read, and get one more event of each of their channels."""
        self._lose_no_more()
        for client in self.clients:
            client.source.pause(pausing=False)
        logged = [name for name in self.names if self.channels[name].is_logged]
        for name in logged:
            self.publish_to(name)
        self._wait(self._are_all_there, "all clients are where the logs are")
        waiting = {
            (client.source, name): self.channels[name].number
            for client in self.clients
            for name in client.source.channels
            if not self.channels[name].is_logged
        }
        begin = dict(waiting)

        def have_all_got_one() -> bool:
            for name in {name for _, name in waiting}:
                self.publish_to(name)
            self._receive_all()
            for client in self.clients:
                for name, place in client.plain.items():
                    if place.first > begin[client.source, name]:
                        waiting.pop((client.source, name), None)
            return not waiting

        self._wait(have_all_got_one, "all clients have got an event without history")
        self.is_lossy = False

    @invariant()
    def records_are_sound(self) -> None:
        """No client has a silent gap, an event twice, or an event that is not for it."""
        self.tally["steps"] += 1
        self._receive_all()

    def teardown(self) -> None:
        """Look at the records for the last time."""
        try:
            if self.clients:
                self.settle()
        finally:
            for client in self.clients:
                client.source.close()
            for app in self.apps:
                State.of(app).rest(PATIENCE)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        try:
            wait_until(condition, what)
        except AssertionError as error:
            for client in self.clients:
                error.add_note(repr(client))
            for channel in self.channels.values():
                error.add_note(f"{channel.name}: {channel.number}")
            raise

    def _lose_no_more(self) -> None:
        for connection in [*LossyConnection.all]:
            connection.to_lose = 0

    def _choose(self, mask: int) -> list[str]:
        """Return one to six channels."""
        chosen = [name for index, name in enumerate(self.names) if mask >> index & 1]
        return chosen[:6]

    def _trim(self, channel: Channel, kept: int) -> None:
        channel.losses += 1
        # Without events it is no stream.
        with contextlib.suppress(redis.ResponseError):
            self.admin_of(channel).xtrim(self._key(channel), maxlen=kept, approximate=False)

    def _key(self, channel: Channel) -> bytes:
        return log_commands.key(channel.name.encode())

    def publish_to(self, name: str, text: str = "") -> None:
        """Publish an event on a channel."""
        channel = self.channels[name]
        with self.apps[0].app_context():
            sse.publish(f"{name} {channel.number} {text}", channel=name)
        channel.note_event()
        channel.has_ended = False

    def _add(
        self, app: int, names: Sequence[str], *, is_read: bool, visited: Visited = _NEVER
    ) -> None:
        last_id, places = visited
        # Half of them can be disconnected, and some do not live long.
        number = next(self.numbers)
        user = f"user-{number % 4}" if number % 2 else ""
        options = {"client": user} if user else {"max_age": "0.1"} if number % 8 == 0 else {}
        source = EventSource(
            self.apps[app % self.processes],
            names,
            is_read=is_read,
            last_id=last_id,
            options=options,
        )
        client = Client(source, {name: replace(place) for name, place in places.items()}, user)
        self.clients.append(client)

    def _reconnect(self, client: Client, app: int, names: Sequence[str]) -> None:
        client.begin()
        client.source.connect(self.apps[app % self.processes], names)

    def _are_all_there(self) -> bool:
        self._receive_all()
        if not all(
            client.has_opened or client.source.is_over or not self._logged(client)
            for client in self.clients
        ):
            return False
        places = [
            (name, client.places[name]) for client in self.clients for name in self._logged(client)
        ]
        behind = {name for name, place in places if place.last != self.channels[name].number}
        unsure = {name for name, place in places if place.first != place.last}
        # Some clients have been told of a reset that came after the last event.
        for name in unsure - behind:
            self.publish_to(name)
        return not behind and not unsure

    def _logged(self, client: Client) -> list[str]:
        return [
            name
            for name in client.source.channels
            if self.channels[name].is_logged
            and not (name in client.places and client.places[name].is_over)
        ]

    def _receive_all(self) -> None:
        for client in self.clients:
            self._receive(client)
            if client.source.come_back():
                client.begin()

    def _receive(self, client: Client) -> None:
        for event in client.source.receive():
            self.tally[event.type] += 1
            if event.type == "sse.open":
                self._check_opening(client, event)
            elif event.type == "sse.reset":
                self._check_reset(client, event)
            elif event.type == "sse.end":
                self._check_end(client, event)
            else:
                self._check_event(client, event)
            if event.id and client.has_opened:
                places = {name: replace(place) for name, place in client.places.items()}
                self.visited = [*self.visited[-100:], Visited(event.id, places)]

    def _check_opening(self, client: Client, event: Event) -> None:
        assert not client.has_opened, "opened twice"
        client.has_opened = True
        assert event.id
        opening = json.loads(event.data)
        states = opening["channels"]
        known = client.places
        over = {name for name in client.source.channels if name in known and known[name].is_over}
        assert {*states} == {*client.source.channels} - over
        client.places = {name: known[name] for name in over}
        for name, state in states.items():
            channel = self.channels[name]
            if not channel.is_logged:
                assert state is None
                client.plain[name] = Place(0, channel.number, 0)
                continue
            if name not in known:
                assert state is False
                client.places[name] = Place(0, channel.number, 0)
                continue
            client.places[name] = known[name]
            assert state in (True, False)
            if not state:
                client.to_reset.add(name)
        logged = [state for state in states.values() if state is not None]
        assert opening["recovered"] == all(logged)

    def _check_reset(self, client: Client, event: Event) -> None:
        assert client.has_opened
        assert event.id
        reset = json.loads(event.data)
        assert reset["reason"]
        channel, place = self.channels[reset["channel"]], client.places[reset["channel"]]
        assert channel.is_latest or place.losses < channel.losses, f"without a cause: {event}"
        client.to_reset.discard(channel.name)
        place.losses += 1
        place.last = channel.number

    def _check_end(self, client: Client, event: Event) -> None:
        assert client.has_opened
        assert event.id
        channel = self.channels[json.loads(event.data)["channel"]]
        place = client.places[channel.name]
        assert channel.name not in client.to_reset, "an end before the reset"
        assert place.last is not None
        possible = channel.ends.intersection(range(place.first, place.last + 1))
        assert possible, f"{channel.name} ends in place of {place}"
        place.is_over = True

    def _check_event(self, client: Client, event: Event) -> None:
        name, digits, _ = event.data.split(" ")
        number = int(digits)
        assert name in client.source.channels, f"{client.source} has got {event.data[:50]}"
        assert name not in client.to_reset, "an event before the reset"
        channel = self.channels[name]
        if channel.is_logged:
            assert client.has_opened
            place = client.places[name]
            place.losses = max(place.losses, channel.losses_before[number])
            assert not place.is_over, "an event after the end"
        else:
            place = client.plain.setdefault(name, Place(0, None, 0))
            if self.is_lossy:
                place.last = None
        assert place.first <= number, f"{name} {number} again, in place of {place.first}"
        if place.last is not None:
            assert number <= place.last, f"{name} {number} in place of {place.last}: {client!r}"
        place.first = place.last = number + 1


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make hubs look soon for what they have missed, over connections that lose events."""
    monkeypatch.setattr(log_queries, "COMPARE_AFTER", 0.3)
    monkeypatch.setattr(log_queries, "_LOOK_EVERY", 0.1)
    monkeypatch.setattr(log_queries, "_ASK_AGAIN_AFTER", 0.05)
    monkeypatch.setattr(failover, "PubSubConnection", LossyConnection)


@pytest.fixture(params=["redis", pytest.param("memory", marks=pytest.mark.long)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a Redis for the model."""
    if request.param == "memory":
        yield "memory://"
        return
    server = RedisServer(tmp_path)
    server.start()
    yield server.url
    server.stop()


@pytest.mark.parametrize(
    ("examples", "steps"),
    [(8, 25), pytest.param(60, 50, marks=[pytest.mark.long, pytest.mark.timeout(3600)])],
)
def test_the_guarantee(url: str, examples: int, steps: int) -> None:
    """In each channel, every event once and in order, or a reset that names the channel."""
    ChannelsMachine.url = url
    run(ChannelsMachine, examples, steps)


def run(machine: type[ChannelsMachine], examples: int, steps: int) -> None:
    """Run a machine again and again."""
    machine.tally = Counter()
    begin = time.monotonic()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            # Other threads are at work, so that what is shrunk may not fail any more.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            print_blob=False,
        ),
    )
    print(dict(machine.tally), f"in {time.monotonic() - begin:.0f} s")
