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
from flask_sse._log.position import EventId
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
            _explain(subscriber)
        elif stream is not None:
            stream.confirmed()
        while (batches := subscriber.take(timeout=None)) is not None:
            for batch in batches:
                for payload in batch.payloads:
                    yield _message(payload, provider)
                if batch.end is not None and stream is not None:
                    stream.ended(batch.end.frame)
        if subscriber.overflowed:
            raise BufferError(
                f"messages() was read too slowly: more than the {limit} bytes of "
                f"SSE_MAX_PENDING waited; raise that setting, or process the messages in another "
                f"thread"
            )
        if isinstance(subscriber.error, LookupError):
            raise subscriber.error
    finally:
        hub.leave(subscriber)


def _message(payload: bytes, provider: JSONProvider) -> Message:
    message = from_payload(payload, provider)
    if isinstance(message.id, str) and (logged := EventId.parse(message.id)) is not None:
        message.id = str(logged.position)
    return message


def _explain(subscriber: Subscriber) -> None:
    if subscriber.error is not None:
        raise subscriber.error
    if not subscriber.has_ended():
        raise redis.ConnectionError(
            f"Redis has not confirmed the subscription within {CONFIRM_WITHIN} s; see the log of "
            f"flask_sse for the reason, and check REDIS_URL"
        )
