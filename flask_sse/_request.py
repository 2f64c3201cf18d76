"""The state of the current application; the channel and the position of the current request.

Only the thread or greenlet that serves the request uses it. Nothing blocks.
"""

from flask import current_app, has_request_context, request

from flask_sse._history import UNKNOWN, Position
from flask_sse._state import State


def current_state() -> State:
    """Return the state of the current application.

    :raises RuntimeError: if it uses ``memory://`` and this server has several processes.
    """
    state = State.of(current_app)
    if (
        state.settings.in_memory
        and has_request_context()
        and request.environ.get("wsgi.multiprocess")
    ):
        raise RuntimeError(
            "memory:// works in one process only, but this server runs several, whose clients "
            "would miss each other's events; set REDIS_URL to a Redis, or start one worker"
        )
    return state


def named_cursor() -> Position | None:
    """Return the position that the client sent, or `None` if it sent none."""
    query = request.args
    text = (
        request.headers.get("Last-Event-ID")
        or query.get("last_event_id")
        or query.get("lastEventId")
    )
    return (Position.parse(text) or UNKNOWN) if text else None


def encode_channel(channel: object) -> bytes:
    """Return a channel's name as bytes; a number is converted as redis-py does it.

    :raises TypeError: if it has an unsupported type.
    :raises ValueError: if it is text that UTF-8 can't encode.
    """
    if isinstance(channel, (bytes, bytearray)):
        return bytes(channel)
    if isinstance(channel, (int, float)) and not isinstance(channel, bool):
        return str(channel).encode()
    if not isinstance(channel, str):
        raise TypeError(f"channel must be a str, not {channel!r}")
    try:
        return channel.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"channel must be text that UTF-8 can encode, not {channel!r}") from error
