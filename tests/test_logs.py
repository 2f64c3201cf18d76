"""All channels with history of a hub together."""

import tracemalloc
from contextlib import closing

import pytest
from flask import Flask

from flask_sse import _logs
from flask_sse._history import Entry, Position
from flask_sse._logs import History, Logs
from flask_sse._page import Page
from flask_sse._pubsub import RedisConnection
from flask_sse._settings import Retention
from flask_sse._waker import Waker

CHANNELS = 200
EVENTS = 100
SIZE = 1000


def _unreachable() -> RedisConnection:
    raise AssertionError("nothing is asked")


def _decode(_: bytes, payload: bytes) -> Entry:
    number = int(payload.split()[0])
    previous = f"{number - 1}"
    return Entry(Position("e", number, f"{number}"), previous, payload + b"\n\n", payload)


def test_silent_channels() -> None:
    """Each is compared with its log once in a while, and others are not."""
    history = History(lambda _: Retention(1000, is_latest=False), _unreachable, 0)
    with closing(Waker()) as waker:
        logs = Logs(history, Flask("tests").json, waker)
        silent, busy = (logs.new_channel(name, _decode, lambda: None) for name in (b"s", b"b"))
        assert silent is not None
        assert busy is not None
        now = silent.heard
        busy.heard = now + _logs.COMPARE_AFTER
        assert [*logs.silent(now + 1)] == []
        assert [*logs.silent(now + _logs.COMPARE_AFTER + 2)] == [silent]
        assert [*logs.silent(now + _logs.COMPARE_AFTER + 4)] == []
        logs.forget(silent)
        assert [*logs.silent(now + 3 * _logs.COMPARE_AFTER)] == [busy]


def test_the_memory_of_many_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they all keep is bounded, also of those that were there before the others."""
    monkeypatch.setattr(_logs, "ALL_RINGS_BYTES", 1 << 20)
    history = History(lambda _: Retention(1000, is_latest=False), _unreachable, 0)
    with closing(Waker()) as waker:
        logs = Logs(history, Flask("tests").json, waker)
        channels = []
        tracemalloc.start()
        try:
            for name in range(CHANNELS):
                channel = logs.new_channel(b"%d" % name, _decode, lambda: None)
                assert channel is not None
                channels.append(channel)
                channel.take_fill(Page(-1, Position("e", 0, "0"), ()))
                for number in range(1, EVENTS + 1):
                    channel.receive([b"%d %b" % (number, b"x" * SIZE)])
            used, _ = tracemalloc.get_traced_memory()
            # A share of the room each, when it was their turn.
            assert used < 12 << 20
            top = Position("e", EVENTS, f"{EVENTS}")
            for channel in channels:
                channel.take_fill(Page(EVENTS, top, ()))
            used, _ = tracemalloc.get_traced_memory()
            assert used < 3 << 20
        finally:
            tracemalloc.stop()
