"""The blueprint: publish, messages, stream and redis, for the current application."""

from collections.abc import Generator
from functools import partial
from typing import Any, Final

from flask import Blueprint, Response, current_app, g, request
from redis import StrictRedis
from werkzeug.exceptions import BadRequest

from flask_sse import signals
from flask_sse._callbacks.stream_signals import new_visit
from flask_sse._event import channel_name
from flask_sse._event.constants import warn_of_constants
from flask_sse._event.message import Message, split_payload, to_payload
from flask_sse._log.position import UNKNOWN, Position, is_end
from flask_sse._redis.log_commands import NewEntry
from flask_sse._state import State
from flask_sse._streaming import response
from flask_sse._streaming.admission import Admission
from flask_sse._streaming.event_stream import EventStream
from flask_sse._streaming.feed import Feed
from flask_sse._streaming.messages import listen
from flask_sse._streaming.overridden import GeneratedStream


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

        A Redis Cluster has no such client. With a ``redis+cluster://`` URL, make a
        ``redis.cluster.RedisCluster`` of your own if you need a client; :meth:`publish` needs none.

        :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
        :raises ValueError: if that URL can't be understood.
        :raises TypeError: if that URL is one of a Redis Cluster.

        >>> with app.app_context():
        ...     sse.redis.ping()
        True
        """
        return State.current().client()

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
        no answer, and in a Redis Cluster, it tries again for up to 5 seconds after the first
        error. It can be called from any thread.

        :param data: The event data. Anything but a string is serialized to JSON by
            the Flask application's :class:`~flask.json.provider.JSONProvider`.
            Flask's default one writes NaN and Infinity, which are not JSON, so a page can't
            parse such data. It is sent, with one :exc:`RuntimeWarning` for each application.
        :param type: The event type, which is the name that a page passes to
            ``addEventListener``. Don't use ``error`` or ``open``: a browser has events of its
            own with these names, so the page could not tell them apart.
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
            All attempts on a channel with history publish it at most once.

        >>> with app.app_context():
        ...     sse.publish({"user": "alice"}, type="login", channel="users")
        0
        """
        name = channel_name.encode(channel)
        message = Message(data, type=type, id=id, retry=retry)
        state = State.current()
        # An error about the URL comes first, and then no settings are kept.
        publisher = state.publisher_for(source_of(self))
        settings = state.keep_settings()
        retention = settings.retention(name)
        if retention is None:
            payload = to_payload(message, current_app.json)
            warn_of_constants(state, channel, payload)
            number = publisher.publish(name, payload)
        else:
            if message.id is not None:
                raise ValueError(
                    f"id must not be given for channel {channel!r}: SSE_HISTORY keeps its events, "
                    f"and their ids are positions in its log"
                )
            parts = split_payload(message, current_app.json)
            warn_of_constants(state, channel, *parts)
            event = NewEntry(*parts, retention.length, settings.history_ttl)
            # Redis chooses the id.
            message.id = None
            number = publisher.append(name, event)
        state.wake_hubs()
        if signals.message_published.receivers:
            text_name = channel_name.to_text(name)
            values = {"channel": text_name, "message": message, "processes": number}
            state.notices.send(signals.message_published, **values)
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

        If the channel ends (:func:`flask_sse.streams.end`), the generator ends after the last
        message.

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
        name = channel_name.encode(channel)
        state = State.current()
        hub, settings = state.hub(source_of(self)), state.settings
        feed = Feed(name, settings.retention(name) is not None)
        return listen(hub, feed, settings.max_pending, state.provider)

    def stream(self) -> Response:
        """Stream server-sent events: a view function.

        The query parameter ``channel`` selects the channel; without one, it is ``sse``. If a
        subclass overrides :meth:`messages`, the stream sends the messages that this method
        yields. On a channel with history (:confval:`SSE_HISTORY`), the stream continues
        after the event whose id is in the header ``Last-Event-ID``, or in the query
        parameter ``last_event_id`` or ``lastEventId``. On other channels, these are ignored.
        If that event has ended the channel, the answer is 204 without a body, after which a
        browser does not connect again.

        :raises KeyError: if neither :confval:`SSE_REDIS_URL` nor :confval:`REDIS_URL` is set.
        :raises werkzeug.exceptions.BadRequest: if the channel is ``flask-sse:control``, over which
            processes tell each other which streams must end. Clients get status 400.

        >>> with app.test_client().get("/stream") as response:
        ...     response.content_type
        'text/event-stream; charset=utf-8'
        """
        channel = request.args.get("channel") or "sse"
        facts = response.look_at_request()
        state = State.current()
        source = source_of(self)
        hub = state.hub(source)
        try:
            name = channel_name.encode(channel)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        is_logged = state.settings.retention(name) is not None
        last_id = response.last_event_id() if is_logged else None
        if last_id is not None and is_end(last_id):
            return response.stop_client()
        client = g.get("sse_client")
        seat = state.seat(source, (name,), client)
        visit = new_visit(state.notices, name, client, seat)
        admission = Admission(state.settings.max_age)
        if type(self).messages is ServerSentEventsBlueprint.messages:
            cursor = None if last_id is None else Position.parse(last_id) or UNKNOWN
            feed = Feed(name, is_logged, cursor)
            body = EventStream(hub, feed, state.streams, facts, visit, admission=admission)
            return response.respond(body, facts.wrap(body))
        generate = partial(self.messages, channel=channel)
        generated = GeneratedStream(generate, state.streams, facts, visit, admission=admission)
        return response.respond(generated, generated)

    # Flask 2.3 and 3 have different types for an application here.
    def register(self, app: Any, options: dict[str, Any]) -> None:
        """Register with an application, as Flask does, and add the commands of ``flask sse``.

        They replace no command of the application's own.
        """
        # Imported here, so that importing the package stays fast.
        from flask_sse._cli.commands import Owner, add_commands, yielding_to  # noqa: PLC0415

        generates = type(self).messages is not ServerSentEventsBlueprint.messages
        add_commands(Owner(self, partial(source_of, self), generates))
        with yielding_to(app.cli.commands):
            super().register(app, options)


ServerSentEventsBlueprint.__module__ = "flask_sse"
_REDIS: Final = ServerSentEventsBlueprint.redis


def source_of(blueprint: ServerSentEventsBlueprint) -> object:
    """Return a blueprint's client, or the cluster in the URL of the current application.

    If a subclass overrides ``redis``, its client is used.
    """
    if type(blueprint).redis is _REDIS:
        return State.current().source()
    return blueprint.redis


sse: Final = ServerSentEventsBlueprint("sse", "flask_sse")
"""An instance of :class:`ServerSentEventsBlueprint` with :meth:`~ServerSentEventsBlueprint.stream`
as the view at its root, for applications that do not want to customize it."""

sse.add_url_rule("", endpoint="stream", view_func=sse.stream)
