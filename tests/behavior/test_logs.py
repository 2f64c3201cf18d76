"""All channels with history of a hub together."""

import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest
import redis
from flask import Flask

from flask_sse._hub import log_queries
from flask_sse._hub.hub import Hub
from flask_sse._hub.log_queries import History, Logs
from flask_sse._hub.logged_channel import LoggedChannel
from flask_sse._hub.subscriber import Follower
from flask_sse._log.page import Page
from flask_sse._log.position import Entry, Position
from flask_sse._redis import log_commands
from flask_sse._redis.log_commands import NewEntry
from flask_sse._redis.log_reader import Answer
from flask_sse._redis.log_source import ServerLogs
from flask_sse._redis.pubsub import (
    Arrival,
    PubSubConnection,
    RedisConnection,
    Subscribed,
    open_connection,
)
from flask_sse._redis.server_subscription import ServerSubscription
from flask_sse._settings import Retention
from flask_sse._system.poller import Waker
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until

CHANNELS = 200
EVENTS = 100
SIZE = 1000


def _unreachable() -> RedisConnection:
    raise AssertionError("nothing is asked")


def _event(number: int) -> Entry:
    payload = b"%d %b" % (number, b"x" * SIZE)
    return Entry(Position("e", number, f"{number}"), f"{number - 1}", payload + b"\n\n", payload)


def test_silent_channels() -> None:
    """Each is compared with its log once in a while, and others are not."""
    source = partial(ServerLogs, _unreachable)
    history = History(lambda _: Retention(1000, is_latest=False), source, 0)
    with closing(Waker()) as waker:
        logs = Logs(history, Flask("tests").json, waker)
        silent, busy = (logs.new_channel(name, lambda: None) for name in (b"s", b"b"))
        assert silent is not None
        assert busy is not None
        now = silent.heard
        busy.heard = now + log_queries.COMPARE_AFTER
        assert [*logs.silent(now + 1)] == []
        assert [*logs.silent(now + log_queries.COMPARE_AFTER + 2)] == [silent]
        assert [*logs.silent(now + log_queries.COMPARE_AFTER + 4)] == []
        logs.forget(silent)
        assert [*logs.silent(now + 3 * log_queries.COMPARE_AFTER)] == [busy]


def test_questions_that_fail() -> None:
    """Each is asked again after a while, as long as there are listeners."""
    attempts = 0
    answers: list[Answer[LoggedChannel]] = []

    def fail() -> RedisConnection:
        nonlocal attempts
        attempts += 1
        raise RuntimeError("no Redis")

    def is_answered() -> bool:
        logs.collect()
        answers.extend(logs.answers())
        return len(answers) == attempts and not logs.is_reading

    history = History(lambda _: Retention(1000, is_latest=False), partial(ServerLogs, fail), 0)
    with closing(Waker()) as waker:
        logs = Logs(history, Flask("tests").json, waker)
        channel = logs.new_channel(b"x", lambda: None)
        assert channel is not None
        channel.compare()
        for expected in (1, 2, 3):
            logs.ask(time.monotonic() + 1)
            wait_until(is_answered, "Redis has been asked")
            assert attempts == expected
            assert answers[-1].page is None
            logs.note_failure(answers[-1].question, answers[-1].error)
            logs.ask(time.monotonic())
            assert not logs.is_reading
        logs.forget(channel)
        logs.ask(time.monotonic() + 1)
        assert not logs.is_reading


def test_the_memory_of_many_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of all channels is limited, including that of older channels."""
    monkeypatch.setattr(log_queries, "ALL_RINGS_BYTES", 1 << 20)
    source = partial(ServerLogs, _unreachable)
    history = History(lambda _: Retention(1000, is_latest=False), source, 0)
    with closing(Waker()) as waker:
        logs = Logs(history, Flask("tests").json, waker)
        channels = []
        tracemalloc.start()
        try:
            for name in range(CHANNELS):
                channel = logs.new_channel(b"%d" % name, lambda: None)
                assert channel is not None
                channels.append(channel)
                channel.compare()
                for _ in range(2):
                    channel.answered(Page(-1, Position("e", 0, "0"), ()), is_fill=True)
                for number in range(1, EVENTS + 1):
                    channel.arrived([_event(number)])
            used, _ = tracemalloc.get_traced_memory()
            # A share of the room each, when it was their turn.
            assert used < 12 << 20
            top = Position("e", EVENTS, f"{EVENTS}")
            for channel in channels:
                channel.compare()
                channel.answered(Page(EVENTS, top, ()), is_fill=True)
            used, _ = tracemalloc.get_traced_memory()
            assert used < 3 << 20
        finally:
            tracemalloc.stop()


class LateConnection(PubSubConnection):
    """A subscription on which an event arrives after the log has said that there is one."""

    def __init__(self, client: redis.Redis, is_late: Callable[[], object]) -> None:
        super().__init__(client)
        self._is_late = is_late
        self._is_subscribed = False

    def read(self, limit: int) -> list[Arrival]:
        """Return what Redis has sent, and then have it send an event and read the log."""
        was_subscribed = self._is_subscribed
        arrivals = super().read(limit)
        self._is_subscribed |= any(isinstance(arrival, Subscribed) for arrival in arrivals)
        if was_subscribed:
            self._is_late()
        return arrivals


def test_an_answer_is_not_taken_before_what_is_older(shared_redis: RedisServer) -> None:
    """A consumer that `publish` has counted gets the event, even if the log answers first."""
    client = redis.Redis(port=shared_redis.port)
    published = threading.Event()

    def has_read() -> bool:
        return all(thread.name != "flask-sse-log" for thread in threading.enumerate())

    def open_late() -> RedisConnection:
        assert published.wait(PATIENCE)
        return open_connection(client)

    def publish() -> None:
        if published.is_set():
            return
        event = NewEntry(b'{"data": "x", "id": "', b'"}', 10, 60)
        assert log_commands.append(client, b"late", event) == 1
        published.set()
        wait_until(has_read, "the log has been read")

    hub = Hub(
        partial(ServerSubscription, partial(LateConnection, client, publish)),
        Flask("tests").json,
        linger=0.1,
        history=History(
            lambda _: Retention(10, is_latest=False), partial(ServerLogs, open_late), 0
        ),
    )
    follower = Follower(1 << 20)
    with closing(client):
        hub.join(b"late", follower)
        assert follower.wait_confirmed(PATIENCE)
        frames: list[bytes] = []

        def has_come() -> bool:
            frames.extend(batch.frames for batch in follower.take(timeout=0.1) or [])
            return any(b"data:x" in frame for frame in frames)

        wait_until(has_come, "the event has come")
        hub.leave(follower)
