"""The members of a channel: which clients have a stream of it, in any process.

:confval:`SSE_PRESENCE` turns it on. A member is a client with a name and at least one open stream
of the channel. All streams of the channel get the event ``sse.join`` when a member has come, and
``sse.leave`` when its last stream has ended, in any process, and it has not come back.

>>> from flask_sse import presence
>>> with app.app_context():
...     presence.members("room.1")
{}
"""

from datetime import UTC, datetime
from typing import NamedTuple

import redis

from flask_sse._blueprint import ServerSentEventsBlueprint, source_of, sse
from flask_sse._event import channel_name
from flask_sse._redis import lease_commands
from flask_sse._state import State

__all__ = ["Member", "members"]


class Member(NamedTuple):
    """A client that has streams of a channel."""

    since: datetime
    """When it has joined, in UTC, on the clock of Redis."""
    streams: int
    """How many streams it has, in all processes: one for each tab or window. A client whose last
    stream has just ended has one for three more seconds, or ten if the server has ended it."""


def members(channel: str, *, blueprint: ServerSentEventsBlueprint = sse) -> dict[str, Member]:
    """Return the members of a channel, in the order in which they have joined.

    A page that needs the list should open its stream first, and fetch the list on ``open``. Then
    it misses nobody. The function waits for Redis, like
    :meth:`~flask_sse.ServerSentEventsBlueprint.publish`.

    :param channel: The channel, which must have presence.
    :param blueprint: The blueprint that publishes to the channel. It matters if a subclass
        overrides :attr:`~flask_sse.ServerSentEventsBlueprint.redis`.
    :return: a mapping of the clients' names to what is known of them.
    :raises TypeError: if *channel* has an unsupported type, or an overridden ``redis`` is not a
        client that runs scripts at once.
    :raises ValueError: if the channel has no presence.
    :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
    :raises redis.exceptions.RedisError: if Redis can't be reached, does not answer or refuses.

    >>> from flask_sse import presence
    >>> with app.app_context():
    ...     "alice" in presence.members("room.1")
    False
    """
    name = channel_name.encode(channel)
    state = State.current()
    publisher = state.publisher_for(source_of(blueprint))
    if not state.settings.has_presence(name):
        raise ValueError(
            f"channel {channel!r} has no presence; SSE_PRESENCE says which channels do"
        )
    try:
        reply = publisher.run(lease_commands.members(name))
    except redis.ResponseError as error:
        raise lease_commands.explain(error) from error
    found = sorted(lease_commands.parse_members(reply).items(), key=lambda item: item[1].since)
    return {
        client.decode(errors="surrogatepass"): Member(
            datetime.fromtimestamp(streams.since, UTC), streams.number
        )
        for client, streams in found
    }
