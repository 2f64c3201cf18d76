"""The generator of a channel's messages.

It is for one thread, and waits in it.
"""

from collections.abc import Generator
from contextvars import ContextVar
from typing import Final, Protocol

import redis
from flask.json.provider import JSONProvider

from flask_sse._hub import Hub
from flask_sse._message import Message, from_payload
from flask_sse._owner import CONFIRM_WITHIN
from flask_sse._subscriber import Subscriber


class Observer(Protocol):
    """Is told of the subscriptions that are made while it is set."""

    def began(self, subscriber: Subscriber) -> None:
        """Note a subscription, which it may end."""

    def confirmed(self) -> None:
        """Note that Redis has confirmed it."""


observer: Final[ContextVar[Observer | None]] = ContextVar("flask_sse_observer", default=None)
"""The stream, if there is one, for which the generator runs."""


def listen(
    hub: Hub, channel: bytes, limit: int, provider: JSONProvider
) -> Generator[Message, None, None]:
    """Yield the messages of *channel*, until the generator is closed or the server stops.

    Each listener gets messages of its own, which it may change.

    :param limit: Bytes that may wait to be fetched.
    :raises redis.RedisError: if there is no subscription to be had.
    :raises BufferError: if more waited than may wait.
    """
    subscriber = Subscriber(limit)
    stream = observer.get()
    if stream is not None:
        stream.began(subscriber)
    hub.join(channel, subscriber)
    try:
        if not subscriber.wait_confirmed(CONFIRM_WITHIN):
            _explain(subscriber)
        elif stream is not None:
            stream.confirmed()
        while (batches := subscriber.take(timeout=None)) is not None:
            for batch in batches:
                for payload in batch.payloads:
                    yield from_payload(payload, provider)
        if subscriber.overflowed:
            raise BufferError(
                f"messages() was read too slowly: more than the {limit} bytes of SSE_MAX_PENDING "
                f"waited; raise that setting, or hand the messages on to another thread"
            )
    finally:
        hub.leave(channel, subscriber)


def _explain(subscriber: Subscriber) -> None:
    if subscriber.error is not None:
        raise subscriber.error
    if not subscriber.has_ended():
        raise redis.ConnectionError(
            f"Redis has not confirmed the subscription within {CONFIRM_WITHIN} s; the log of "
            f"flask_sse says why, and REDIS_URL where it was looked for"
        )
