"""The generator of a channel's messages.

One thread uses it, and it blocks that thread.
"""

from collections.abc import Generator
from contextvars import ContextVar
from typing import Final, Protocol

import redis
from flask.json.provider import JSONProvider

from flask_sse._event.message import Message, from_payload
from flask_sse._hub.hub import Hub
from flask_sse._hub.service import CONFIRM_WITHIN
from flask_sse._hub.subscriber import Subscriber
from flask_sse._log.position import EventId, Position
from flask_sse._streaming.feed import Feed


class Observer(Protocol):
    """Told about the subscriptions that are made while it is set."""

    def began(self, subscriber: Subscriber) -> None:
        """Note a subscription, which it may end."""

    def confirmed(self) -> None:
        """Note that Redis has confirmed it."""

    def ended(self, frame: bytes) -> None:
        """Note that the channel has ended, and the event with which streams say so."""


observer: Final[ContextVar[Observer | None]] = ContextVar("flask_sse_observer", default=None)
"""The stream for which the generator runs, if there is one."""


def listen(
    hub: Hub, feed: Feed, limit: int, provider: JSONProvider
) -> Generator[Message, None, None]:
    """Yield the messages of *feed*, until the channel ends, the server stops, or it is closed.

    Each listener gets its own messages, which it may change.

    :param limit: Bytes that may wait to be fetched.
    :raises redis.RedisError: if the subscription fails.
    :raises BufferError: if more bytes waited than the limit allows.
    :raises LookupError: if the feed is strict and messages may be missing.
    """
    subscriber = feed.new_subscriber(limit)
    stream = observer.get()
    if stream is not None:
        stream.began(subscriber)
    hub.join(feed.channel, subscriber)
    try:
        if not subscriber.wait_confirmed(CONFIRM_WITHIN):
            raise_if_silent(subscriber)
        elif stream is not None:
            stream.confirmed()
        while (batches := subscriber.take(timeout=None)) is not None:
            for batch in batches:
                for payload in batch.payloads:
                    message, _ = parse(payload, provider)
                    yield message
                if batch.end is not None and stream is not None:
                    stream.ended(batch.end.frame)
        raise_if_broken(subscriber)
    finally:
        hub.leave(subscriber)


def parse(payload: bytes, provider: JSONProvider) -> tuple[Message, Position | None]:
    """Return a message, and its position if it is in a log, which is then also its id."""
    message = from_payload(payload, provider)
    found = EventId.parse(message.id) if isinstance(message.id, str) else None
    if found is None:
        return message, None
    message.id = str(found.position)
    return message, found.position


def raise_if_broken(subscriber: Subscriber) -> None:
    """Raise the error that has ended a subscription, unless it has ended as it should."""
    if subscriber.overflowed:
        raise BufferError(
            f"messages() was read too slowly: more than the {subscriber.limit} bytes of "
            f"SSE_MAX_PENDING waited; raise that setting, or process the messages in another "
            f"thread"
        )
    if isinstance(subscriber.error, LookupError):
        raise subscriber.error


def raise_if_silent(subscriber: Subscriber) -> None:
    """Raise the reason why a subscription has not been confirmed, unless the server stops."""
    if subscriber.error is not None:
        raise subscriber.error
    if not subscriber.has_ended():
        raise redis.ConnectionError(
            f"Redis has not confirmed the subscription within {CONFIRM_WITHIN} s; see the log of "
            f"flask_sse for the reason, and check REDIS_URL"
        )
