"""The generator of a channel's messages.

One thread uses it, and it blocks that thread.
"""

from collections.abc import Generator
from contextvars import ContextVar
from typing import Final, Protocol

import redis
from flask.json.provider import JSONProvider

from flask_sse._history import EventId, Position
from flask_sse._hub import Hub
from flask_sse._message import Message, from_payload
from flask_sse._owner import CONFIRM_WITHIN
from flask_sse._subscriber import Follower, Subscriber


def new_subscriber(limit: int, *, is_logged: bool) -> Subscriber:
    """Return a subscriber for :func:`listen`.

    :param limit: Bytes that may wait to be fetched.
    :param is_logged: Whether the channel has history.
    """
    return Follower(limit) if is_logged else Subscriber(limit)


def new_strict_subscriber(limit: int, after: Position | None) -> Subscriber:
    """Return a subscriber for :func:`listen` to a channel with history.

    It makes :func:`listen` raise :exc:`LookupError` if messages may be missing.

    :param after: The position after which to begin, or `None` for the newest position.
    """
    return Follower(limit, after, is_strict=True)


class Observer(Protocol):
    """Told about the subscriptions that are made while it is set."""

    def began(self, subscriber: Subscriber) -> None:
        """Note a subscription, which it may end."""

    def confirmed(self) -> None:
        """Note that Redis has confirmed it."""


observer: Final[ContextVar[Observer | None]] = ContextVar("flask_sse_observer", default=None)
"""The stream for which the generator runs, if there is one."""


def listen(
    hub: Hub, channel: bytes, subscriber: Subscriber, provider: JSONProvider
) -> Generator[Message, None, None]:
    """Yield the messages of *channel*, until the generator is closed or the server stops.

    Each listener gets its own messages, which it may change.

    :raises redis.RedisError: if the subscription fails.
    :raises BufferError: if more bytes waited than the limit allows.
    """
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
                    yield _message(payload, provider)
        if subscriber.overflowed:
            raise BufferError(
                f"messages() was read too slowly: more than the {subscriber.limit} bytes of "
                f"SSE_MAX_PENDING waited; raise that setting, or process the messages in another "
                f"thread"
            )
        if isinstance(subscriber.error, LookupError):
            raise subscriber.error
    finally:
        hub.leave(channel, subscriber)


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
