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

        It waits until Redis has answered: for up to 5 seconds each to get a connection
        and to get the answer. It may be called from any thread.

        :param data: The event data. Anything but a string is serialized to JSON by
            the Flask application's :class:`~flask.json.provider.JSONProvider`.
        :param type: The event type, which is the name that a page gives to
            ``addEventListener``.
        :param id: The event id. A browser stores it and sends it back as
            ``Last-Event-ID`` when it reconnects. Without history the stream ignores that
            header, so an id has no effect other than being ``event.lastEventId`` in the
            page. A channel with history (:confval:`SSE_HISTORY`) chooses the ids itself.
        :param retry: The time, in milliseconds, after which clients of this stream
            reconnect once they have been disconnected.
        :param channel: Directs different events to different clients: only clients that
            listen to this channel receive the event. Bytes are the name as Redis has it.
        :return: how many processes are subscribed to the channel, as Redis says.
        :raises TypeError: if an argument has a type that makes no sense, *data* can't be
            serialized to JSON, or an overridden :attr:`redis` is no client that
            publishes at once.
        :raises ValueError: if an argument can't be part of an event, as
            :class:`Message` says, or if *id* is given and the channel has history
            (:confval:`SSE_HISTORY`). Nothing has been sent then.
        :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
        :raises redis.exceptions.RedisError: if Redis can't be reached or gives no
            answer. In the latter case the event may have been published. On a channel
            with history Redis has been asked twice then, which publishes once at most.

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
            # Redis gives it the id.
            message.id = None
            number = state.append(self.redis, name, event)
        state.wake_hubs()
        if _signals.message_published.receivers:
            shown = name.decode(errors="replace")
            values = {"channel": shown, "message": message, "processes": number}
            state.notices.send(_signals.message_published, **values)
        return number

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Generate the :class:`Message` objects of the given channel.

        The subscription begins with the first ``next()`` and ends with the
        generator's ``close()``. It needs an application context only when it is
        called, not while it waits. It outlives an outage of Redis, whose events are
        lost, and ends when the server is told to stop.

        On a channel with history (:confval:`SSE_HISTORY`) the messages have ids, none of
        an outage is lost, and a slow consumer is not disconnected: it goes on from the
        log. What ``sse.reset`` tells a browser is logged as a warning here;
        :func:`flask_sse.history.messages` raises an error for it.

        :param channel: The channel to listen to.
        :raises TypeError: if *channel* has a type that makes no sense, or an overridden
            :attr:`redis` does not tell how to connect.
        :raises ValueError: if *channel* is text that UTF-8 can't carry.
        :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
        :raises redis.exceptions.ConnectionError: from the first ``next()``, if Redis
            can't be reached.
        :raises BufferError: from a later ``next()``, if more than
            :confval:`SSE_MAX_PENDING` bytes waited to be fetched.

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

        Where a subclass overrides :meth:`messages`, the stream sends what that generates.
        The query parameter ``channel`` picks another channel than ``sse``. On a channel
        with history (:confval:`SSE_HISTORY`) the stream goes on after the event that the
        header ``Last-Event-ID`` names, or the query's ``last_event_id`` or
        ``lastEventId``. Elsewhere these are ignored.

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
        # The response's own would run when the view has returned, or never.
        response.call_on_close = body.call_on_close  # type: ignore[method-assign]
        return response

    # Flask 2.3 and 3 have different types for an application here.
    def register(self, app: Any, options: dict[str, Any]) -> None:
        """Register with an application, as Flask does, and add the commands of ``flask sse``."""
        # Importing the package alone takes no longer for it.
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
