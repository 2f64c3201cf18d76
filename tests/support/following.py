"""Clients that reconnect after each loss, and a check of what they have received."""

import contextlib
import json
import threading
import time
from collections.abc import Sequence
from typing import Self

import redis
from flask import Flask

from flask_sse import history, sse
from tests.support.client import StreamClient
from tests.support.parser import Event
from tests.support.waiting import PATIENCE, wait_until

_PAUSE = 0.1


class FollowingClient:
    """Follows a channel with history, and reconnects with its position, as browsers do."""

    def __init__(self, port: int, channel: str) -> None:
        self.port = port
        self.channel = channel
        self.events: list[Event] = []
        self.connections = 0
        self._last_id = ""
        self._stopped = False
        self._client: StreamClient | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            wait_until(lambda: self.events, "the stream begins")
        except AssertionError:
            self._stopped = True
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()

    def numbers(self) -> list[int]:
        """Return the numbers that have been received."""
        return [int(event.data) for event in self.events if event.type == "message"]

    def resets(self) -> int:
        """Return how often the client was told that it may have missed something."""
        return sum(event.type == "sse.reset" for event in self.events)

    def wait_number(self, number: int, seconds: float = PATIENCE) -> None:
        """Wait for a number."""
        wait_until(lambda: number in self.numbers()[-5:], f"number {number} has come", seconds)

    def wait_position(self, app: Flask) -> None:
        """Wait until the client has reached the log's position, by an event or by a reset."""
        with app.app_context():
            position = history.position(self.channel)
        wait_until(lambda: self.events[-1].id == position, f"{position} is reached")

    def wait_connections(self, number: int) -> None:
        """Wait until the stream has been opened or resumed this many times."""

        def begun() -> bool:
            return sum(event.type == "sse.open" for event in self.events) >= number

        wait_until(begun, f"the stream begins for the {number}th time")

    def cut(self) -> None:
        """Break the connection."""
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.socket.shutdown(2)

    def _run(self) -> None:
        while not self._stopped:
            with contextlib.suppress(OSError):
                self._follow()
            time.sleep(_PAUSE)

    def _follow(self) -> None:
        headers = f"Last-Event-ID: {self._last_id}\r\n" if self._last_id else ""
        with StreamClient(self.port, self.channel, headers=headers) as client:
            self._client = client
            self.connections += 1
            seen = 0
            while not self._stopped and not client.ended:
                client.socket.settimeout(0.1)
                client.receive()
                new = client.events[seen:]
                seen += len(new)
                if new:
                    self._last_id = new[-1].id
                    self.events += new


class Publisher:
    """Publishes numbers, from 0 or *start* on, without pauses, until it is stopped.

    If the answer to a number is lost, it is not repeated: it may have been published.
    """

    def __init__(
        self, app: Flask, channel: str, interval: float = 0.002, *, start: int = 0
    ) -> None:
        self.number = start
        self.failures: list[int] = []
        self._app = app
        self._channel = channel
        self._interval = interval
        self._stopped = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Stop; return the last number that was published."""
        self._stopped = True
        self._thread.join()
        return self.number - 1

    def wait(self, more: int, seconds: float = PATIENCE) -> None:
        """Wait until this many more numbers have been published."""
        until = self.number + more
        wait_until(lambda: self.number >= until, f"{more} more are published", seconds)

    def _run(self) -> None:
        with self._app.app_context():
            while not self._stopped:
                try:
                    sse.publish(self.number, channel=self._channel)
                except redis.RedisError:
                    self.failures.append(self.number)
                self.number += 1
                time.sleep(self._interval)


def check(events: Sequence[Event], failures: Sequence[int] = ()) -> None:
    """Check a client's record: each number in its order, or a reset before the gap.

    :param failures: Numbers that may or may not have been published.
    """
    assert events[0].type == "sse.open"
    last: int | None = None
    may_have_gap = True
    unknown = {*failures}
    for event in events:
        if event.type == "sse.reset":
            may_have_gap = True
        elif event.type == "message":
            number = int(event.data)
            if last is not None and not may_have_gap:
                missing = {*range(last + 1, number)} - unknown
                assert number > last, f"{number} after {last}"
                assert not missing, f"a silent gap between {last} and {number}"
            last, may_have_gap = number, False
        else:
            assert event.type == "sse.open"
            assert set(json.loads(event.data)) == {"channel", "recovered"}
