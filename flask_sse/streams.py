"""Streams whose channels a view chooses: several on one connection.

The view of the blueprint opens the one channel that its URL names. A view of your own, which
checks the user first, can open any number of channels on one ``EventSource``. Each of them that
has history (:confval:`SSE_HISTORY`) is resumed exactly, since the id of each event names the
positions in all.

>>> from flask_sse import streams
>>> @app.get("/events")
... def events():
...     return streams.stream(["news", f"user.{7}"])
"""

from collections.abc import Iterable
from typing import Final

from flask import Response

from flask_sse._blueprint import ServerSentEventsBlueprint, source_of, sse
from flask_sse._callbacks.stream_signals import new_visit
from flask_sse._event import channel_name
from flask_sse._event.revocation import Revocation
from flask_sse._log import composite_id, ending
from flask_sse._log.composite_id import Ended, Marks
from flask_sse._log.position import UNKNOWN
from flask_sse._redis.log_commands import NewEntry
from flask_sse._redis.revoking import revoke
from flask_sse._settings import Settings
from flask_sse._state import State
from flask_sse._streaming import response
from flask_sse._streaming.admission import Admission
from flask_sse._streaming.event_stream import EventStream
from flask_sse._streaming.feed import Feed

__all__ = ["disconnect", "end", "position", "stream"]

_MOST_CHANNELS: Final = 100


def stream(
    channels: Iterable[str],
    *,
    client: str | None = None,
    max_age: float | None = None,
    blueprint: ServerSentEventsBlueprint = sse,
) -> Response:
    """Stream the events of several channels: the return value of a view.

    The events of each channel come in the order in which they were published. Events of different
    channels may come in any order. The stream resumes where the client has been before, as its
    ``Last-Event-ID`` says, or the query parameter ``last_event_id`` or ``lastEventId``. A channel
    that was not among the channels of that stream begins now. An overridden
    :meth:`~flask_sse.ServerSentEventsBlueprint.messages` is not called.

    :param channels: The channels, in any order: 1 to 100, of which up to 50 may have history.
    :param client: The user or the session that the stream belongs to, which :func:`disconnect`
        and the signals name: 1 to 256 characters. Call this function right after the check of
        the user: a revocation applies to streams that are opened before it. If Redis does not
        allow the channel ``flask-sse:control``, or can't be reached, the client gets no stream,
        and tries again.
    :param max_age: The number of seconds after which the stream ends at the latest, for example
        until the user's session expires. It ends after 80% to 100% of them, and its client comes
        back through the view. By default, it is :confval:`SSE_MAX_AGE`.
    :param blueprint: The blueprint that publishes to the channels. It matters if a subclass
        overrides :attr:`~flask_sse.ServerSentEventsBlueprint.redis`.
    :raises TypeError: if *channels* is a string, or an argument has an unsupported type.
    :raises ValueError: if there are no channels, or too many, or if *client* is empty or too
        long, or if *max_age* is not above 0.
    :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.

    >>> from flask_sse import streams
    >>> @app.get("/chat")
    ... def chat():
    ...     return streams.stream(["chat.general", "chat.random"], client="alice")
    >>> with app.test_client().get("/chat") as response:
    ...     response.status_code
    200
    """
    names = _to_names(channels)
    state = State.current()
    settings = state.settings
    logged = _logged(names, settings)
    admission = Admission.of(client, max_age, settings.max_age)
    facts = response.look_at_request()
    source = source_of(blueprint)
    hub = state.hub(source)
    marks = _named_marks(logged)
    if marks and len(names) == len(marks) and all(isinstance(mark, Ended) for mark in marks):
        return response.stop_client()
    seat = state.seat(source, names, client)
    visit = new_visit(state.notices, names, client, seat)
    feed = Feed(names, bool(logged), marks=marks)
    body = EventStream(hub, feed, state.streams, facts, visit, admission=admission)
    return response.respond(body, facts.wrap(body))


def position(channels: Iterable[str], *, blueprint: ServerSentEventsBlueprint = sse) -> str:
    """Return the id from which a stream of these channels continues, as of now.

    If a page is rendered with this id, and opens the stream with it as ``last_event_id``, it
    gets every event that is published in between on the channels that have history. The function
    waits for Redis, like :meth:`~flask_sse.ServerSentEventsBlueprint.publish`.

    :param channels: The channels, of which at least one has history.
    :param blueprint: The blueprint that publishes to the channels. It matters if a subclass
        overrides :attr:`~flask_sse.ServerSentEventsBlueprint.redis`.
    :raises TypeError: if *channels* is a string, or one of them has an unsupported type, or an
        overridden ``redis`` is not a client that runs scripts at once.
    :raises ValueError: if there are no channels, or too many, or none has history.
    :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
    :raises redis.exceptions.RedisError: if Redis can't be reached, does not answer or refuses.

    >>> from flask_sse import streams
    >>> with app.app_context():
    ...     streams.position(["news", "weather"]).startswith("1-")
    True
    """
    state = State.current()
    logged = _logged(_to_names(channels), state.settings)
    if not logged:
        raise ValueError(
            "none of the channels has history, so there is no position; SSE_HISTORY says which "
            "channels do"
        )
    publisher = state.publisher_for(source_of(blueprint))
    encoder = composite_id.Encoder(logged)
    entries = [encoder.entry(index, publisher.position(name)) for index, name in enumerate(logged)]
    return encoder.join(entries).decode()


def disconnect(
    *,
    client: str | None = None,
    channel: str | None = None,
    blueprint: ServerSentEventsBlueprint = sse,
) -> int:
    """End streams that have been opened with ``client``, in all processes, within a second.

    A process takes a few seconds to end thousands of streams, so that others don't wait. Call it
    after you have withdrawn the user's access, for example at the logout. Each client gets what has
    been waiting for it, and reconnects by itself, so your view checks it again. If the view answers
    with status 403, an ``EventSource`` gives up. If a process may have missed a call of this
    function, because it had lost its connection to Redis, it ends all such streams within ten
    seconds, so that their clients are checked again. Only a stream that is opened at the same
    moment, and is the first one with ``client`` in its process, may stay open;
    :confval:`SSE_MAX_AGE` ends it later.

    Streams that have been opened without ``client``, including those of the blueprint's own view,
    are not affected, even if ``g.sse_client`` is set. The streams of all applications that use
    the same Redis are affected, since they share its channels.

    :param client: End the streams of this client.
    :param channel: End the streams that have this channel, perhaps among others. With both, a
        stream must match both.
    :param blueprint: The blueprint that publishes to the channels. It matters if a subclass
        overrides :attr:`~flask_sse.ServerSentEventsBlueprint.redis`.
    :return: the number of processes that have been told. These have streams with a ``client``, or
        had some a short time ago.
    :raises TypeError: if both are missing, or one has an unsupported type.
    :raises ValueError: if *client* is empty or too long.
    :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
    :raises redis.exceptions.NoPermissionError: if Redis does not allow the channel
        ``flask-sse:control``; the message names the rule to add.
    :raises redis.exceptions.RedisError: if Redis can't be reached or does not answer. Then some
        processes may have been told.

    >>> from flask_sse import streams
    >>> with app.app_context():
    ...     streams.disconnect(client="alice")
    0
    """
    revocation = Revocation.of(client, channel)
    state = State.current()
    number = revoke(state.publisher_for(source_of(blueprint)), revocation)
    state.wake_hubs()
    return number


def end(channel: str, *, blueprint: ServerSentEventsBlueprint = sse) -> int:
    """End a channel, for example when an answer or a job is complete.

    Each client gets the event ``sse.end`` after all others, with the data ``{"channel": "..."}``.
    If it has no other channels, its stream ends then, and when the client reconnects, it is
    answered 204, after which a browser does not reconnect. A client that connects later gets the
    events that are kept, and the end, as long as these are kept (:confval:`SSE_HISTORY_TTL`).

    If something is published to the channel after that, it is open again, but clients that have
    received the end do not reconnect by themselves. If the newest event is an end, nothing is
    added. The function waits for Redis, like
    :meth:`~flask_sse.ServerSentEventsBlueprint.publish`, and ends the channel once, even if an
    answer is lost.

    :param channel: The channel, which must have history: a client that is disconnected learns
        about the end when it reconnects.
    :param blueprint: The blueprint that publishes to the channel. It matters if a subclass
        overrides :attr:`~flask_sse.ServerSentEventsBlueprint.redis`.
    :return: the number of processes that are subscribed to the channel, according to Redis.
    :raises TypeError: if *channel* has an unsupported type, or an overridden ``redis`` is not a
        client that runs scripts at once.
    :raises ValueError: if the channel has no history.
    :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
    :raises redis.exceptions.RedisError: if Redis can't be reached, does not answer or refuses.

    >>> from flask_sse import streams
    >>> with app.app_context():
    ...     _ = sse.publish("The last words", channel="answer.7")
    ...     streams.end("answer.7")
    0
    """
    name = channel_name.encode(channel)
    state = State.current()
    publisher = state.publisher_for(source_of(blueprint))
    settings = state.keep_settings()
    retention = settings.retention(name)
    if retention is None:
        raise ValueError(
            f"channel {channel!r} has no history, so clients that are away would never learn that "
            f"it has ended; SSE_HISTORY says which channels have history"
        )
    event = NewEntry(*ending.split_payload(name), retention.length, settings.history_ttl)
    number = publisher.append(name, event)
    state.wake_hubs()
    return number


def _to_names(channels: Iterable[str]) -> tuple[bytes, ...]:
    if isinstance(channels, (str, bytes, bytearray)):
        raise TypeError(f"channels must be several names, such as [{channels!r}], not one")
    names = tuple(sorted({channel_name.encode(channel) for channel in channels}))
    if not 1 <= len(names) <= _MOST_CHANNELS:
        raise ValueError(
            f"channels must be 1 to {_MOST_CHANNELS} names, not {len(names)}; publish to fewer "
            f"channels, or open several streams"
        )
    return names


def _logged(names: tuple[bytes, ...], settings: Settings) -> tuple[bytes, ...]:
    """Return the channels that have history.

    :raises ValueError: if there are more than an id can name.
    """
    logged = tuple(name for name in names if settings.retention(name) is not None)
    composite_id.check_number(logged)
    return logged


def _named_marks(logged: tuple[bytes, ...]) -> Marks:
    """Return the position that the client sent for each of these channels."""
    text = response.last_event_id()
    if text is None or not logged:
        return ()
    marks = composite_id.parse(text, logged)
    return [UNKNOWN] * len(logged) if marks is None else marks
