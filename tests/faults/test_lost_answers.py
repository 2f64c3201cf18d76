"""Publishing with history when the answer of Redis is lost: once, or with an error."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final

import psutil
import pytest
import redis
from flask import Flask

from flask_sse import history, sse
from flask_sse._redis import log_commands
from flask_sse._redis.log_commands import NewEntry
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

MakeApp = Callable[..., Flask]
END: Final = "end"
KEPT: Final = {"plenty": 5000, "one": 1}


@contextmanager
def running(task: Callable[[], None]) -> Iterator[threading.Thread]:
    """Run a task in parallel with the block, and wait for the task at the end."""
    thread = threading.Thread(target=task)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()


def connections_to(server: RedisServer) -> set[int]:
    """Return the ports from which this process is connected to a Redis."""
    return {
        connection.laddr.port
        for connection in psutil.Process().net_connections("tcp")
        if connection.raddr and connection.raddr.port == server.port
    }


def logged(app: Flask, start: str) -> Sequence[object]:
    """Return the events after a position."""
    with app.app_context():
        sse.publish(END)
        with closing(history.messages("sse", after=start)) as messages:
            return [*iter(lambda: next(messages).data, END)]


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_redis_is_frozen_before_it_has_answered(
    make_app: MakeApp, redis_server: RedisServer, kept: int
) -> None:
    """It then gets the command twice, and publishes the event once."""
    # Long enough for the second attempt, however slow this machine is.
    app = make_app(REDIS_URL=f"{redis_server.url}?socket_timeout=3", SSE_HISTORY=kept)
    with app.app_context():
        # From now on Redis knows the script, so it carries the command out each time.
        sse.publish("before")
        start = history.position()
    results: list[int] = []

    def publish() -> None:
        with app.app_context():
            results.append(sse.publish("event"))

    with closing(redis_server.admin.pubsub(ignore_subscribe_messages=True)) as listener:
        listener.subscribe("sse")
        wait_until(redis_server.listeners, "subscribed")
        known = connections_to(redis_server)
        redis_server.freeze()
        try:
            with running(publish):
                wait_until(lambda: connections_to(redis_server) - known, "the second attempt")
                redis_server.thaw()
        finally:
            redis_server.thaw()
        assert results == [1]
        with app.app_context():
            sse.publish(END)
        data = [json.loads(next(listener.listen())["data"] or b"")["data"] for _ in range(2)]
        assert data == ["event", END]
    if kept > 1:
        assert logged(app, start) == ["event"]


def test_connections_are_killed_before_redis_has_answered(
    make_app: MakeApp, redis_server: RedisServer
) -> None:
    """Events for which `publish` returned are in the log once, and the others at most once."""
    app = make_app(REDIS_URL=redis_server.url, SSE_HISTORY=5000)
    with app.app_context():
        start = history.position()
    returned: list[int] = []
    failed: list[int] = []

    def publish() -> None:
        with app.app_context():
            for number in range(1000):
                try:
                    sse.publish(number)
                except redis.ConnectionError:
                    failed.append(number)
                else:
                    returned.append(number)

    killed = 0
    with running(publish) as thread:
        while thread.is_alive():
            killed += redis_server.admin.client_kill_filter(_type="normal", skipme=True)
    found = logged(app, start)
    assert killed > 20
    assert len(found) == len(set(map(str, found)))
    assert [number for number in found if number not in failed] == returned


def test_a_command_that_comes_after_its_repetition(redis_server: RedisServer) -> None:
    """A slow connection has held it back; Redis knows it after 100 other events."""
    client = redis_server.admin
    name = log_commands.key(b"x")
    command = (b"x", log_commands.new_epoch(0), 1000, 60, b'{"data": "first", "id": "', b'"}')
    log_commands.append_once(client, name, *command, "again")
    for number in range(100):
        log_commands.append(
            client, b"x", NewEntry(b'{"data": %d, "id": "' % number, b'"}', 1000, 60)
        )
    log_commands.append_once(client, name, *command)
    assert log_commands.newest_position(client, b"x").offset == 101


def test_a_command_that_is_repeated_late(redis_server: RedisServer) -> None:
    """Redis knows it after 30 other events, though the log has kept one of them only."""
    client = redis_server.admin
    name = log_commands.key(b"x")
    command = (b"x", log_commands.new_epoch(0), 1, 60, b'{"data": "first", "id": "', b'"}')
    log_commands.append_once(client, name, *command)
    for number in range(30):
        log_commands.append(client, b"x", NewEntry(b'{"data": %d, "id": "' % number, b'"}', 1, 60))
    assert log_commands.newest_position(client, b"x").offset == 31
    log_commands.append_once(client, name, *command, "again")
    assert log_commands.newest_position(client, b"x").offset == 31
    log_commands.append_once(client, name, *command)
    assert log_commands.newest_position(client, b"x").offset == 32, "it says that it is a new one"
