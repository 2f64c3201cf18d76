"""The payloads on a channel of a real Redis, received by a separate client."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.client import PubSub

from tests.support.waiting import wait_until


class Listener:
    """Receives the payloads of a channel."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._payloads: list[dict[str, Any]] = []

    def payloads(self, number: int) -> list[dict[str, Any]]:
        """Wait until there are *number* payloads in total; return all payloads."""
        wait_until(lambda: self._hear() >= number, f"{number} payloads")
        # A duplicate payload would have arrived by now: Redis keeps the order.
        self._pubsub.ping()
        while not self._is_pong(self._pubsub.get_message(timeout=1)):
            pass
        return self._payloads

    def _hear(self) -> int:
        while (message := self._pubsub.get_message(timeout=0.05)) is not None:
            self._is_pong(message)
        return len(self._payloads)

    def _is_pong(self, message: dict[str, Any] | None) -> bool:
        if message is not None and message["type"] == "message":
            self._payloads.append(json.loads(message["data"]))
        return message is not None and message["type"] == "pong"


@contextmanager
def listening(client: redis.Redis, channel: str = "sse") -> Iterator[Listener]:
    """Subscribe to *channel* until the block ends."""
    with client.pubsub() as pubsub:
        pubsub.subscribe(channel)
        wait_until(lambda: pubsub.get_message(timeout=0.1), "Redis has confirmed the subscription")
        yield Listener(pubsub)
