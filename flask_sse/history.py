"""Positions in the log of a channel, and its messages from a position on.

It works with channels that have history, which :confval:`SSE_HISTORY` turns on. A position is
the ``id`` of an event, or the beginning of a log. Browsers send it back in ``Last-Event-ID``.

>>> from flask_sse import history
>>> with app.app_context():
...     before = history.position("news")
...     _ = sse.publish("Hello!", channel="news")
...     messages = history.messages("news", after=before)
...     print(next(messages).data)
Hello!
>>> messages.close()
"""

from collections.abc import Generator

from flask_sse._blueprint import ServerSentEventsBlueprint, source_of, sse
from flask_sse._event import channel_name
from flask_sse._event.message import Message
from flask_sse._log.position import Position
from flask_sse._state import State
from flask_sse._streaming.feed import Feed
from flask_sse._streaming.messages import listen

__all__ = ["messages", "position"]


def position(channel: str = "sse", *, blueprint: ServerSentEventsBlueprint = sse) -> str:
    """Return the id of the newest event of a channel, or of the beginning of an empty log.

    If a page is rendered with this id, and opens the stream with it as ``last_event_id``, it
    gets every event that is published in between. The function waits for Redis, like
    :meth:`~flask_sse.ServerSentEventsBlueprint.publish`. If the channel has ended, the page gets
    the end.

    :param channel: The channel, which must have history.
    :param blueprint: The blueprint that publishes to the channel. It matters if a subclass
        overrides :attr:`~flask_sse.ServerSentEventsBlueprint.redis`.
    :raises TypeError: if *channel* has an unsupported type, or an overridden ``redis`` is not a
        client that runs scripts at once.
    :raises ValueError: if the channel has no history.
    :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
    :raises redis.exceptions.RedisError: if Redis can't be reached, does not answer or refuses.

    >>> from flask import url_for
    >>> from flask_sse import history
    >>> with app.test_request_context():
    ...     url = url_for("sse.stream", channel="news", last_event_id=history.position("news"))
    >>> url.startswith("/stream?channel=news&last_event_id=")
    True
    """
    name = channel_name.encode(channel)
    state = State.current()
    _require_history(state, name, channel)
    return str(state.publisher_for(source_of(blueprint)).position(name))


def messages(
    channel: str = "sse",
    after: str | None = None,
    *,
    blueprint: ServerSentEventsBlueprint = sse,
) -> Generator[Message, None, None]:
    """Yield the messages of a channel from a position on.

    The messages that have been published since that position come first, and then new messages
    as they are published. The ``id`` of each message is its position, from which a consumer can
    continue later. The subscription begins with the first ``next()`` and ends with ``close()``.
    If the channel ends (:func:`flask_sse.streams.end`), the generator ends after the last message.
    Only the call needs an application context.

    :param channel: The channel, which must have history.
    :param after: The id after which to begin; by default the newest id at the first ``next()``,
        or if the channel has ended, the id before the oldest message since the end before.
    :param blueprint: The blueprint that publishes to the channel. It matters if a subclass
        overrides :attr:`~flask_sse.ServerSentEventsBlueprint.redis`.
    :raises TypeError: if *channel* has an unsupported type, or an overridden ``redis`` does not
        say how to connect.
    :raises ValueError: if the channel has no history, or *after* is not an id from a log.
    :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
    :raises LookupError: from any ``next()``, if messages may be missing, because they are no
        longer kept or Redis has lost them. Browsers get ``sse.reset`` in this case. The
        generator has ended then; call :func:`position` and :func:`messages` to begin again.
    :raises redis.exceptions.RedisError: from the first ``next()``, if Redis can't be reached.

    >>> from flask_sse import history
    >>> with app.app_context():
    ...     start = history.position("news")
    ...     _ = [sse.publish(number, channel="news") for number in range(3)]
    ...     numbers = history.messages("news", after=start)
    ...     [next(numbers).data for _ in range(3)]
    [0, 1, 2]
    >>> numbers.close()
    """
    name = channel_name.encode(channel)
    state = State.current()
    _require_history(state, name, channel)
    cursor = None if after is None else Position.parse(after)
    if after is not None and cursor is None:
        raise ValueError(f"after must be the id of an event with history, not {after!r}")
    feed = Feed(name, is_logged=True, after=cursor, is_strict=True)
    limit = state.settings.max_pending
    return listen(state.hub(source_of(blueprint)), feed, limit, state.provider)


def _require_history(state: State, name: bytes, channel: object) -> None:
    if state.settings.retention(name) is None:
        raise ValueError(f"channel {channel!r} has no history; SSE_HISTORY says which channels do")
