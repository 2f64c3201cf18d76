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

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeGuard, overload

from flask_sse._blueprint import ServerSentEventsBlueprint, source_of, sse
from flask_sse._event import channel_name
from flask_sse._event.message import Message
from flask_sse._log import composite_id
from flask_sse._log.composite_id import Encoder, Ended
from flask_sse._log.position import Cursor, Position
from flask_sse._state import State
from flask_sse._streaming.feed import Feed
from flask_sse._streaming.merged_messages import Heard, listen_to_all
from flask_sse._streaming.messages import listen

__all__ = ["ChannelMessage", "messages", "position"]


class ChannelMessage(Message):
    """A :class:`~flask_sse.Message` that knows its channel, from :func:`messages`.

    It is equal to any message with the same other attributes.

    >>> from flask_sse.history import ChannelMessage
    >>> message = ChannelMessage("news", "Hello!", type="greeting")
    >>> message
    ChannelMessage('news', 'Hello!', type='greeting')
    >>> message == Message("Hello!", type="greeting")
    True
    """

    channel: str
    """The channel to which the message was published."""

    def __init__(
        self,
        channel: str,
        data: Any,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
    ) -> None:
        super().__init__(data, type, id, retry)
        self.channel = channel

    def __repr__(self) -> str:
        _, _, arguments = super().__repr__().partition("(")
        return f"{self.__class__.__name__}({self.channel!r}, {arguments}"


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


@overload
def messages(  # type: ignore[overload-overlap]  # a str is one channel, although it is iterable
    channel: str = "sse",
    after: str | None = None,
    *,
    blueprint: ServerSentEventsBlueprint = sse,
) -> Generator[Message, None, None]: ...
@overload
def messages(
    channel: Iterable[str],
    after: str | None = None,
    *,
    blueprint: ServerSentEventsBlueprint = sse,
) -> Generator[ChannelMessage, None, None]: ...
def messages(
    channel: str | Iterable[str] = "sse",
    after: str | None = None,
    *,
    blueprint: ServerSentEventsBlueprint = sse,
) -> Generator[Message, None, None]:
    """Yield the messages of a channel, or of several, from a position on.

    The messages that have been published since that position come first, and then new messages
    as they are published. The ``id`` of each message is its position, from which a consumer can
    continue later. The subscription begins with the first ``next()`` and ends with ``close()``.
    If the channel ends (:func:`flask_sse.streams.end`), the generator ends after the last message.
    Only the call needs an application context.

    With several channels, each message is a :class:`ChannelMessage`, and its ``id`` is the
    position in all of them. No message of any channel is missing or comes twice if a consumer
    continues there. Messages of one channel come in the order in which they were published. The
    generator ends with the last channel. It leaves out a channel whose end was before that id.

    :param channel: The channel, or up to 50 channels, which must have history. Their order does
        not matter, and duplicates are ignored.
    :param after: The id after which to begin. By default, the generator begins with messages that
        are published after the first ``next()``. If the channel has ended, it begins with the
        oldest message that is kept, but not with one from before an earlier end.
        With several channels, it is the id of such a message or of an event from
        :func:`flask_sse.streams.stream`, or the result of :func:`flask_sse.streams.position`. The
        channels may be others than those of the id: a new one begins as if there were no id.
    :param blueprint: The blueprint that publishes to the channel. It matters if a subclass
        overrides :attr:`~flask_sse.ServerSentEventsBlueprint.redis`.
    :raises TypeError: if *channel* has an unsupported type, or an overridden ``redis`` does not
        say how to connect.
    :raises ValueError: if a channel has no history, there is none or there are more than 50, or
        *after* is not an id from a log.
    :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
    :raises LookupError: from any ``next()``, if messages may be missing, because they are no
        longer kept or Redis has lost them. Browsers get ``sse.reset`` in this case. The
        generator has ended then; call :func:`position` and :func:`messages` to begin again. With
        several channels, the error names the channel.
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
    state = State.current()
    if _are_several(channel):
        return _of_several([*channel], after, state, blueprint)
    name = channel_name.encode(channel)
    _require_history(state, name, channel)
    cursor = None if after is None else Position.parse(after)
    if after is not None and cursor is None:
        raise ValueError(f"after must be the id of an event with history, not {after!r}")
    feed = Feed(name, is_logged=True, after=cursor, is_strict=True)
    limit = state.settings.max_pending
    return listen(state.hub(source_of(blueprint)), feed, limit, state.provider)


def _are_several(channel: object) -> TypeGuard[Iterable[str]]:
    """Whether it is an iterable of names, and not one name."""
    return isinstance(channel, Iterable) and not isinstance(channel, (str, bytes, bytearray))


def _of_several(
    channels: Sequence[str],
    after: str | None,
    state: State,
    blueprint: ServerSentEventsBlueprint,
) -> Generator[ChannelMessage, None, None]:
    names = {channel_name.encode(channel): channel for channel in channels}
    names = dict(sorted(names.items()))
    if not names:
        raise ValueError("channel must name at least one channel, not none")
    for name, channel in names.items():
        _require_history(state, name, channel)
    given = [None] * len(names) if after is None else composite_id.parse(after, [*names])
    if given is None:
        raise ValueError(
            f"after must be an id from messages of several channels or from streams.position(), "
            f"not {after!r}"
        )
    positions = _Positions(dict(zip(names, given, strict=True)))
    feeds = {
        name: Feed(name, is_logged=True, after=cursor, is_strict=True)
        for name, cursor in zip(names, given, strict=True)
        if not isinstance(cursor, Ended)
    }
    hub, limit = state.hub(source_of(blueprint)), state.settings.max_pending
    return _numbered(listen_to_all(hub, feeds, limit, state.provider, positions), positions)


def _numbered(
    source: Generator[Heard, None, None], positions: "_Positions"
) -> Generator[ChannelMessage, None, None]:
    """Yield messages with ids that name the positions in all channels."""
    with closing(source):
        for name, message, position in source:
            if position is not None:
                positions.move(name, position)
                message.id = str(positions)
            yield ChannelMessage(
                channel_name.to_text(name), message.data, message.type, message.id, message.retry
            )


class _Positions:
    """The positions of a consumer in several logs.

    :param cursors: Where it begins, with an item for each log.
    """

    def __init__(self, cursors: Mapping[bytes, Cursor | Ended | None]) -> None:
        self._encoder = Encoder([*cursors])
        self._indexes = {name: index for index, name in enumerate(cursors)}
        self._entries = [
            key if cursor is Ended.ENDED else b""
            for key, cursor in zip(self._encoder.keys, cursors.values(), strict=True)
        ]

    def begin(self, cursors: Mapping[bytes, Cursor]) -> None:
        """Note where the consumer begins in the logs that have not ended."""
        for name, cursor in cursors.items():
            self.move(name, cursor)

    def move(self, name: bytes, cursor: Cursor) -> None:
        """Note that the consumer has got everything up to a position."""
        index = self._indexes[name]
        self._entries[index] = self._encoder.entry(index, cursor)

    def end(self, name: bytes) -> None:
        """Note that the consumer has got everything up to the end of a channel."""
        index = self._indexes[name]
        self._entries[index] = self._encoder.keys[index]

    def __str__(self) -> str:
        return self._encoder.join(self._entries).decode()


def _require_history(state: State, name: bytes, channel: object) -> None:
    if state.settings.retention(name) is None:
        raise ValueError(f"channel {channel!r} has no history; SSE_HISTORY says which channels do")
