"""The blueprint: publish, messages, stream and redis, for the current application."""

from collections.abc import Generator, Iterable
from functools import partial
from typing import Any, Final

from flask import Blueprint, Response, current_app, has_request_context, request
from redis import StrictRedis

from flask_sse import _server
from flask_sse._generated import GeneratedStream
from flask_sse._hub import Hub
from flask_sse._message import Message, to_payload
from flask_sse._messages import listen
from flask_sse._response import EventStream
from flask_sse._state import State

_HEADERS: Final = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}


class ServerSentEventsBlueprint(Blueprint):
    """A :class:`flask.Blueprint` that publishes, subscribes to and streams events.

    Its constructor is that of :class:`flask.Blueprint`.
    """

    @property
    def redis(self) -> StrictRedis:
        """A :class:`redis.StrictRedis` for the current application's Redis.

        It is the client that redis-py makes from the URL, with redis-py's own timeouts and
        retries, and yours to use: events are published on other connections. There is
        one for each application and process; in a native thread beside gevent's, such as
        one of its thread pool, each access makes a new one, since connections can't
        be shared with such a thread.

        A subclass may override it. All other methods use the client that it returns.

        :raises KeyError: if neither ``SSE_REDIS_URL`` nor ``REDIS_URL`` is set.
        :raises ValueError: if that URL can't be understood.

        >>> with app.app_context():
        ...     sse.redis.ping()
        True
        """
        return _state().client()

    def publish(
        self,
        data: Any,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        channel: str = "sse",
    ) -> int:
        """Publish data as a server-sent event.

        It waits until Redis has answered: for up to 5 seconds each to get a connection
        and to get the answer. It may be called from any thread.

        :param data: The event data. Anything but a string is serialized to JSON by
            the Flask application's :class:`~flask.json.provider.JSONProvider`.
        :param type: The event type, which is the name that a page gives to
            ``addEventListener``.
        :param id: The event id.
        :param retry: The time, in milliseconds, after which clients of this stream
            reconnect once they have been disconnected.
        :param channel: Clients that subscribe to this channel receive the event. Bytes
            are the name as Redis has it.
        :return: how many processes are subscribed to the channel, as Redis says.
        :raises TypeError: if an argument has a type that makes no sense, *data* can't be
            serialized to JSON, or an overridden :attr:`redis` is no client that
            publishes at once.
        :raises ValueError: if an argument can't be part of an event, as
            :class:`Message` says. Nothing has been sent then.
        :raises KeyError: if neither ``SSE_REDIS_URL`` nor ``REDIS_URL`` is set.
        :raises redis.exceptions.RedisError: if Redis can't be reached or gives no
            answer. In the latter case the event may have been published.

        >>> with app.app_context():
        ...     sse.publish({"user": "alice"}, type="login", channel="users")
        0
        """
        name = _encode_channel(channel)
        message = Message(data, type=type, id=id, retry=retry)
        payload = to_payload(message, current_app.json)
        client = self.redis
        state = _state()
        number = state.publish(client, name, payload)
        state.wake_hubs()
        return number

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Generate the :class:`Message` objects of the given channel.

        The subscription begins with the first ``next()`` and ends with the
        generator's ``close()``. It needs an application context only when it is
        called, not while it waits. It outlives an outage of Redis, whose events are
        lost, and ends when the server is told to stop.

        :param channel: The channel to listen to.
        :raises TypeError: if *channel* has a type that makes no sense, or an overridden
            :attr:`redis` does not tell how to connect.
        :raises ValueError: if *channel* is text that UTF-8 can't carry.
        :raises KeyError: if neither ``SSE_REDIS_URL`` nor ``REDIS_URL`` is set.
        :raises redis.exceptions.ConnectionError: from the first ``next()``, if Redis
            can't be reached.
        :raises BufferError: from a later ``next()``, if more than
            ``SSE_MAX_PENDING`` bytes waited to be fetched.

        >>> with app.app_context():
        ...     messages = sse.messages("users")
        >>> messages.close()
        """
        name = _encode_channel(channel)
        state = _state()
        return listen(self._hub(), name, state.settings.max_pending, state.provider)

    def stream(self) -> Response:
        """Stream server-sent events: a view function.

        Where a subclass overrides :meth:`messages`, the stream sends what that generates.
        The query parameter ``channel`` picks another channel than ``sse``. Any
        ``Last-Event-ID`` header of the request is ignored.

        :raises KeyError: if neither ``SSE_REDIS_URL`` nor ``REDIS_URL`` is set.

        >>> with app.test_client().get("/stream") as response:
        ...     response.content_type
        'text/event-stream; charset=utf-8'
        """
        channel = request.args.get("channel") or "sse"
        hub, streams = self._hub(), _state().streams
        _server.prepare(request.environ)
        body: EventStream | GeneratedStream
        pieces: Iterable[bytes]
        if type(self).messages is ServerSentEventsBlueprint.messages:
            body = EventStream(hub, _encode_channel(channel), streams, request.environ)
            pieces = _server.file_wrapper(request.environ)(body)
        else:
            generate = partial(self.messages, channel=channel)
            pieces = body = GeneratedStream(generate, streams)
        response = current_app.response_class(
            pieces,
            headers=_HEADERS,
            content_type="text/event-stream; charset=utf-8",
            direct_passthrough=True,
        )
        # The response's own would run when the view has returned, or never.
        response.call_on_close = body.call_on_close  # type: ignore[method-assign]
        return response

    def _hub(self) -> Hub:
        return _state().hub(self.redis)


ServerSentEventsBlueprint.__module__ = "flask_sse"


def _state() -> State:
    state = State.of(current_app)
    if (
        state.settings.in_memory
        and has_request_context()
        and request.environ.get("wsgi.multiprocess")
    ):
        raise RuntimeError(
            "memory:// serves one process only, and this server runs several, whose clients "
            "would miss each other's events; set REDIS_URL to a Redis, or start one worker"
        )
    return state


def _encode_channel(channel: object) -> bytes:
    """Return a channel's name as Redis has it; of a name that is no text, as redis-py writes it."""
    if isinstance(channel, (bytes, bytearray)):
        return bytes(channel)
    if isinstance(channel, (int, float)) and not isinstance(channel, bool):
        return str(channel).encode()
    if not isinstance(channel, str):
        raise TypeError(f"channel must be a str, not {channel!r}")
    try:
        return channel.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"channel must be text that UTF-8 can carry, not {channel!r}") from error


sse: Final = ServerSentEventsBlueprint("sse", "flask_sse")
"""An instance of :class:`ServerSentEventsBlueprint` with :meth:`~ServerSentEventsBlueprint.stream`
as the view at its root, for applications that do not want to customize it."""

sse.add_url_rule("", endpoint="stream", view_func=sse.stream)
