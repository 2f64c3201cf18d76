"""The blueprint: publish, messages, stream and redis, for the current application."""

from collections.abc import Generator, Iterable
from functools import partial
from typing import Any, Final

from flask import Blueprint, Response, current_app, g, request
from redis import StrictRedis

from flask_sse import _server, _signals
from flask_sse._generated import GeneratedStream
from flask_sse._history import Event
from flask_sse._hub import Hub
from flask_sse._message import Message, split_payload, to_payload
from flask_sse._messages import listen, new_subscriber
from flask_sse._request import current_state, encode_channel, named_cursor
from flask_sse._response import EventStream
from flask_sse._visit import new_visit

_HEADERS: Final = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}


class ServerSentEventsBlueprint(Blueprint):
    """A :class:`flask.Blueprint` that publishes, subscribes to and streams events.

    It takes the same arguments as :class:`flask.Blueprint`.
    """

    @property
    def redis(self) -> StrictRedis:
        """A :class:`redis.StrictRedis` for the current application's Redis.

        redis-py makes this client from the URL, with its own timeouts and retries. You can use
        it freely: events are published on other connections. There is one client for each
        application and process. In a native thread other than gevent's own, such as a thread of
        its thread pool, each access makes a new client, since connections can't be shared with
        such a thread.

        A subclass may override it. Then :meth:`publish` uses the client that it returns, and
        streams take the address and the credentials of Redis from it.

        :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
        :raises ValueError: if that URL can't be understood.

        >>> with app.app_context():
        ...     sse.redis.ping()
        True
        """
        return current_state().client()

    def publish(
        self,
        data: Any,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        channel: str = "sse",
    ) -> int:
        """Publish data as a server-sent event.

        It waits until Redis has answered: up to 5 seconds for a connection, and up to 5
        seconds for the answer. On a channel with history, it tries a second time if there is
        no answer. It can be called from any thread.

        :param data: The event data. Anything but a string is serialized to JSON by
            the Flask application's :class:`~flask.json.provider.JSONProvider`.
        :param type: The event type, which is the name that a page passes to
            ``addEventListener``.
        :param id: The event id. A browser stores it and sends it back as
            ``Last-Event-ID`` when it reconnects. Without history, the stream ignores that
            header, so the only effect of an id is that the page sees it as
            ``event.lastEventId``. A channel with history (:confval:`SSE_HISTORY`) chooses
            the ids itself.
        :param retry: The time, in milliseconds, after which clients of this stream
            reconnect once they have been disconnected.
        :param channel: The channel to publish to. Only clients that listen to this channel
            receive the event. Bytes are used as the name in Redis, unchanged.
        :return: the number of processes that are subscribed to the channel, according to
            Redis.
        :raises TypeError: if an argument has an unsupported type, *data* can't be
            serialized to JSON, or an overridden :attr:`redis` is not a client that
            publishes at once.
        :raises ValueError: if an argument can't be part of an event, as described in
            :class:`Message`, or if *id* is given and the channel has history
            (:confval:`SSE_HISTORY`). In both cases, nothing has been sent.
        :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
        :raises redis.exceptions.RedisError: if Redis can't be reached, does not answer, or
            refuses the command. If it does not answer, the event may have been published.
            Both attempts on a channel with history publish it at most once.

        >>> with app.app_context():
        ...     sse.publish({"user": "alice"}, type="login", channel="users")
        0
        """
        name = encode_channel(channel)
        message = Message(data, type=type, id=id, retry=retry)
        state = current_state()
        retention = state.settings.retention(name)
        if retention is None:
            payload = to_payload(message, current_app.json)
            number = state.publish(self.redis, name, payload)
        else:
            if message.id is not None:
                raise ValueError(
                    f"id must not be given for channel {channel!r}: SSE_HISTORY keeps its events, "
                    f"and their ids are positions in its log"
                )
            parts = split_payload(message, current_app.json)
            event = Event(*parts, retention.length, state.settings.history_ttl)
            # Redis chooses the id.
            message.id = None
            number = state.append(self.redis, name, event)
        state.wake_hubs()
        if _signals.message_published.receivers:
            text_name = name.decode(errors="replace")
            values = {"channel": text_name, "message": message, "processes": number}
            state.notices.send(_signals.message_published, **values)
        return number

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Yield the messages of a channel as they are published.

        The subscription begins with the first ``next()`` and ends with the
        generator's ``close()``. The call needs an application context, but the generator
        does not need one while it waits. It survives an outage of Redis, but events
        published during the outage are lost. It ends when the server is told to stop.

        On a channel with history (:confval:`SSE_HISTORY`), the messages have ids, no
        messages are lost in an outage, and a slow consumer is not disconnected: it continues
        from the log. Where a browser would get ``sse.reset``, a warning is logged here;
        :func:`flask_sse.history.messages` raises an error instead.

        :param channel: The channel to listen to.
        :raises TypeError: if *channel* has an unsupported type, or an overridden
            :attr:`redis` does not say how to connect.
        :raises ValueError: if *channel* is text that UTF-8 can't encode.
        :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
        :raises redis.exceptions.ConnectionError: from the first ``next()``, if Redis
            can't be reached. This is redis-py's exception, not Python's.
        :raises BufferError: from a later ``next()``, if more than
            :confval:`SSE_MAX_PENDING` bytes were waiting; not on a channel with history.

        >>> with app.app_context():
        ...     messages = sse.messages("users")
        >>> messages.close()
        """
        name = encode_channel(channel)
        state = current_state()
        hub = self._hub()
        is_logged = state.settings.retention(name) is not None
        limit = state.settings.max_pending
        return listen(hub, name, new_subscriber(limit, is_logged=is_logged), state.provider)

    def stream(self) -> Response:
        """Stream server-sent events: a view function.

        The query parameter ``channel`` selects the channel; without one, it is ``sse``. If a
        subclass overrides :meth:`messages`, the stream sends the messages that this method
        yields. On a channel with history (:confval:`SSE_HISTORY`), the stream continues
        after the event whose id is in the header ``Last-Event-ID``, or in the query
        parameter ``last_event_id`` or ``lastEventId``. On other channels, these are ignored.

        :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.

        >>> with app.test_client().get("/stream") as response:
        ...     response.content_type
        'text/event-stream; charset=utf-8'
        """
        channel = request.args.get("channel") or "sse"
        _server.prepare(request.environ)
        hub, state = self._hub(), current_state()
        name = encode_channel(channel)
        visit = new_visit(state.notices, name, g.get("sse_client"))
        body: EventStream | GeneratedStream
        pieces: Iterable[bytes]
        if type(self).messages is ServerSentEventsBlueprint.messages:
            is_logged = state.settings.retention(name) is not None
            cursor = named_cursor() if is_logged else None
            body = EventStream(
                hub,
                name,
                state.streams,
                request.environ,
                is_logged=is_logged,
                cursor=cursor,
                visit=visit,
            )
            pieces = _server.file_wrapper(request.environ)(body)
        else:
            generate = partial(self.messages, channel=channel)
            patience = _server.patience(request.environ)
            pieces = body = GeneratedStream(generate, state.streams, patience, visit)
        response = current_app.response_class(
            pieces,
            headers=_HEADERS,
            content_type="text/event-stream; charset=utf-8",
            direct_passthrough=True,
        )
        # The response's own method would call functions when the view has returned, or never.
        response.call_on_close = body.call_on_close  # type: ignore[method-assign]
        return response

    # Flask 2.3 and 3 have different types for an application here.
    def register(self, app: Any, options: dict[str, Any]) -> None:
        """Register with an application, as Flask does, and add the commands of ``flask sse``."""
        # Imported here, so that importing the package stays fast.
        from flask_sse._cli import add_commands  # noqa: PLC0415

        add_commands(self)
        super().register(app, options)

    def _hub(self) -> Hub:
        return current_state().hub(self.redis)


ServerSentEventsBlueprint.__module__ = "flask_sse"


sse: Final = ServerSentEventsBlueprint("sse", "flask_sse")
"""An instance of :class:`ServerSentEventsBlueprint` with :meth:`~ServerSentEventsBlueprint.stream`
as the view at its root, for applications that do not want to customize it."""

sse.add_url_rule("", endpoint="stream", view_func=sse.stream)
