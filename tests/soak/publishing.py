"""Publishes numbered events, and remembers for which of them Redis has answered."""

import contextlib
import random
import threading
from collections.abc import Callable
from typing import Self

import redis
from flask import Flask

from flask_sse import history, sse
from tests.soak.events import FOREIGN, INTERVALS, Number, text_of
from tests.support.waiting import wait_until


class Worker:
    """A thread that does something again and again, as long as the block lasts."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, when it has done what it is at."""
        self.stopping.set()
        self._thread.join()

    def step(self) -> None:
        """Do it once, and wait until it is to be done again."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                self.step()
        except Exception as error:
            self.error = error
            raise


class Publisher(Worker):
    """Publishes to a channel with history."""

    def __init__(self, app: Flask, channel: str) -> None:
        super().__init__()
        self.acknowledged: list[Number] = []
        """The events whose `publish` has returned."""
        self.unknown: list[Number] = []
        """Those whose `publish` has raised, which may be in the log or not."""
        self.channel = channel
        self._app = app

    def step(self) -> None:
        """Publish the next number."""
        self._publish()
        self.stopping.wait(INTERVALS[self.channel])

    def finish(self) -> str:
        """Publish a last event, whatever it takes; return its id."""
        wait_until(self._publish, "the last event is published", 60)
        with self._app.app_context():
            return history.position(self.channel)

    def _publish(self) -> bool:
        number = Number(self.channel, len(self.acknowledged) + len(self.unknown))
        try:
            with self._app.app_context():
                sse.publish(text_of(number), channel=self.channel)
        except redis.RedisError:
            self.unknown.append(number)
            return False
        self.acknowledged.append(number)
        return True


class ForeignPublisher(Worker):
    """Publishes without history, as 1.0 does, and payloads that are not events."""

    def __init__(self, publish: Callable[[str, str], object], rng: random.Random) -> None:
        super().__init__()
        self.published = 0
        self._publish = publish
        self._rng = rng

    def step(self) -> None:
        """Publish something."""
        payload = self._rng.choice(
            [f'{{"data": "x", "type": "{FOREIGN}", "id": "7"}}', "malformed"]
        )
        with contextlib.suppress(redis.RedisError):
            self._publish(self._rng.choice([*INTERVALS]), payload)
            self.published += 1
        self.stopping.wait(self._rng.uniform(0.2, 1))
