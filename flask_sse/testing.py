"""Tests streams and published messages in an application's own tests.

Nothing here needs Redis, a web server or a call of ``sleep()``, and no threads are left behind.
Install the extra ``memory``. With pytest, the fixture ``sse_harness`` is :func:`harness`, until
the test ends.

>>> from flask_sse.testing import harness
>>> with harness(app) as tested:
...     stream = tested.open("users")
...     with app.app_context():
...         _ = sse.publish({"user": "alice"}, type="login", channel="users")
...     assert stream.get() == Message({"user": "alice"}, type="login")
...     print(tested.published)
[Published(channel='users', message=Message({'user': 'alice'}, type='login'))]
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from contextvars import copy_context
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from flask import Flask
from flask.json.provider import JSONProvider
from flask.testing import FlaskClient
from werkzeug.routing import BuildError, Rule
from werkzeug.test import TestResponse

from flask_sse._blueprint import ServerSentEventsBlueprint, sse
from flask_sse._event.message import Message, encode, from_payload, to_payload
from flask_sse._event.parser import Parsed, Parser
from flask_sse._state import State
from flask_sse._streaming.servers import PATIENCE
from flask_sse._system.clock import monotonic
from flask_sse.signals import message_published

__all__ = [
    "Harness",
    "Published",
    "ReceivedMessage",
    "Stream",
    "harness",
    "in_memory",
    "open_stream",
    "record",
]

_REST_WITHIN: Final = 5.0
_STARTING: Final = 0.001
"""Seconds after which a thread that is being started is looked at again."""
_SHORT_LIVED: Final = {
    "flask-sse-close",
    "flask-sse-connect",
    "flask-sse-log",
    "flask-sse-topology",
}


class ReceivedMessage(Message):
    """A :class:`~flask_sse.Message` as a browser receives it.

    Its data is text, like ``event.data`` in a browser, and its id is text too. It is equal to
    any message that looks the same to a browser.

    >>> from flask_sse.testing import harness
    >>> with harness(app) as tested:
    ...     stream = tested.open()
    ...     with app.app_context():
    ...         _ = sse.publish({"n": 1})
    ...     message = stream.get()
    >>> message.data, message.json
    ('{"n": 1}', {'n': 1})
    >>> message == Message({"n": 1})
    True
    """

    data: str

    def __init__(self, parsed: Parsed, provider: JSONProvider) -> None:
        super().__init__(parsed.data, parsed.type, parsed.id, parsed.retry)
        self._provider = provider

    @property
    def json(self) -> Any:
        """The data, parsed as ``JSON.parse(event.data)`` does it.

        :raises ValueError: if the data is not JSON.
        """
        return self._provider.loads(self.data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self._frame(self) == self._frame(other)

    def _frame(self, message: Message) -> bytes:
        # On the way through Redis, a tuple becomes a list, and a date becomes text.
        provider = self._provider
        return encode(from_payload(to_payload(message, provider), provider), provider)


class _Deadline:
    """The time until which the reader of a stream waits."""

    def __init__(self, seconds: float) -> None:
        self._time = monotonic() + seconds

    def move(self, seconds: float) -> None:
        """Set the deadline to some seconds from now."""
        self._time = monotonic() + seconds

    def left(self) -> float:
        """Return how many seconds are left."""
        return max(0.0, self._time - monotonic())


class Stream:
    """An open event stream: messages that are published from now on arrive.

    :func:`open_stream` makes it.
    """

    def __init__(
        self, response: TestResponse, provider: JSONProvider, timeout: float, deadline: _Deadline
    ) -> None:
        self.response: TestResponse = response
        """The response of Flask's test client, with the status and the headers."""
        self.timeout: float = timeout
        """Seconds that :meth:`get` waits by default."""
        self.last_event_id: str = ""
        """The ``Last-Event-ID`` that a browser would send after these messages."""
        self.ended: set[str] = set()
        """The channels of which :meth:`get` has returned the end, which is ``sse.end``."""
        self._provider = provider
        self._deadline = deadline
        self._pieces = response.iter_encoded()
        self._parser = Parser()
        self._messages: list[ReceivedMessage] = []
        self._channels: dict[str, bool | None] = {}
        self._number = 0
        self._has_ended = False
        # The first piece arrives when Redis has confirmed the subscription.
        self._read()

    @property
    def retry(self) -> int | None:
        """The last reconnection time that the stream has sent, in milliseconds."""
        return self._parser.retry

    @property
    def channels(self) -> Mapping[str, bool | None]:
        """The channels that ``sse.open`` names, and whether the client has missed nothing of each.

        It is ``None`` for a channel without history. Streams without history have no ``sse.open``,
        so there are no channels here.
        """
        if not self._channels:
            # If there is an ``sse.open``, it is waiting.
            self._deadline.move(0)
            self._read()
        return self._channels

    def get(self, timeout: float | None = None) -> ReceivedMessage:
        """Return the next message, and wait for it if necessary.

        :param timeout: Seconds to wait at most; by default the timeout of the stream.
        :raises TimeoutError: if no message arrives in time.
        :raises EOFError: if the stream has ended.
        """
        seconds = self.timeout if timeout is None else timeout
        self._deadline.move(seconds)
        is_over = False
        while not self._messages:
            if self._has_ended:
                raise EOFError(f"the stream has ended after {self._describe()}")
            if is_over:
                raise TimeoutError(f"no message within {seconds} s, after {self._describe()}")
            # Waiting data is read even if the timeout is 0.
            is_over = self._deadline.left() <= 0
            self._read()
        self._number += 1
        message = self._messages.pop(0)
        if message.id is not None:
            self.last_event_id = str(message.id)
        if message.type == "sse.end":
            self.ended.add(message.json["channel"])
        return message

    def __iter__(self) -> Iterator[ReceivedMessage]:
        """Iterate over the messages until the stream ends; see :meth:`get` for exceptions."""
        while True:
            try:
                message = self.get()
            except EOFError:
                return
            yield message

    def _read(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            self._has_ended = True
            return
        for parsed in self._parser.feed(piece):
            message = ReceivedMessage(parsed, self._provider)
            self._messages.append(message)
            if message.type == "sse.open":
                told = message.json
                self._channels = told.get("channels") or {told["channel"]: told["recovered"]}

    def _describe(self) -> str:
        return f"{self._number} message{'' if self._number == 1 else 's'}"


class Published(NamedTuple):
    """A published message and its channel."""

    channel: str
    """The name of the channel."""
    message: Message
    """The message, with the data that was passed to ``publish``."""


class Harness:
    """An application under test, on ``memory://``, with its streams and published messages.

    :func:`harness` makes it.
    """

    def __init__(self, app: Flask, published: list[Published], streams: ExitStack) -> None:
        self.app: Flask = app
        """The application under test."""
        self.published: list[Published] = published
        """Messages that the application has published, in a growing list; see :func:`record`."""
        self._streams = streams

    def open(
        self,
        channel: str | None = None,
        *,
        client: FlaskClient | None = None,
        url: str | None = None,
        last_event_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Stream:
        """Open a stream that ends with the harness; see :func:`open_stream`.

        :param client: The client that opens it; by default a new client.
        """
        stream = open_stream(
            client or self.app,
            channel,
            url=url,
            last_event_id=last_event_id,
            headers=headers,
            timeout=timeout,
        )
        return self._streams.enter_context(stream)


def in_memory(app: Flask) -> AbstractContextManager[None]:
    """Make an application use its own embedded Redis, which is empty at first.

    Until the block ends, :confval:`SSE_REDIS_URL` is ``memory://``, and all settings are read
    again. At the end, the previous state is restored. An overridden
    :attr:`~flask_sse.ServerSentEventsBlueprint.redis` is used as before.

    >>> from flask_sse.testing import in_memory
    >>> app.config["SSE_REDIS_URL"] = "redis://production"
    >>> with in_memory(app), app.app_context():
    ...     sse.publish("Hello!")
    0
    >>> app.config["SSE_REDIS_URL"]
    'redis://production'
    """
    return State.in_memory(app)


@contextmanager
def open_stream(
    source: Flask | FlaskClient,
    channel: str | None = None,
    *,
    url: str | None = None,
    last_event_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 5.0,
) -> Generator[Stream, None, None]:
    """Open a stream through Flask's test client, and close it when the block ends.

    The subscription exists when the block begins, and on a channel with presence, the stream's
    client is a member. When the block ends, the client leaves without a delay, and the threads
    that Flask-SSE has started for the application end, unless there are other listeners.

    :param source: The application, or a test client of it, which may have logged in.
    :param channel: The channel to listen to; by default, the query does not name one.
    :param url: The URL of the stream, with a host if it is not the application's own. By
        default, it is the URL at which the application has registered ``flask_sse.sse``, or if
        it has not, its only :class:`~flask_sse.ServerSentEventsBlueprint`.
    :param last_event_id: The value to send as ``Last-Event-ID``.
    :param headers: Other headers to send.
    :param timeout: Seconds that :meth:`Stream.get` waits by default.
    :raises LookupError: if *url* is not given, and the application has no stream or more than
        one, or the URL contains variables.
    :raises AssertionError: if the answer is not an event stream. To test access control, use
        the test client directly and check the status.

    >>> from flask_sse.testing import open_stream
    >>> with open_stream(app, "users") as stream:
    ...     with app.app_context():
    ...         _ = sse.publish("Hello!", channel="users")
    ...     stream.get().data
    'Hello!'
    """
    client = source.test_client() if isinstance(source, Flask) else source
    app: Flask = client.application
    sent = dict(headers or {})
    if last_event_id is not None:
        sent["Last-Event-ID"] = last_event_id
    deadline = _Deadline(timeout)
    # If `messages` is overridden, the contexts of the request are kept until the stream ends. The
    # test must not see them, unless it has asked for that.
    run = _call if client.preserve_context else copy_context().run
    response = run(
        client.get,
        _with_channel(url or _url_of(app), channel),
        headers=sent,
        environ_overrides={PATIENCE: deadline.left},
    )
    try:
        if response.status_code == 204:
            raise AssertionError(
                f"{response.request.base_url} answered {response.status}, which tells an "
                f"EventSource to stop, as all channels have ended for its Last-Event-ID"
            )
        if response.status_code != 200 or response.mimetype != "text/event-stream":
            raise AssertionError(
                f"{response.request.base_url} answered {response.status}, {response.mimetype}, "
                f"which is not an event stream"
            )
        stream = Stream(response, app.json, timeout, deadline)
        State.of(app).settle(_REST_WITHIN)
        yield stream
    finally:
        run(response.close)
        State.of(app).rest(_REST_WITHIN)
        _await_threads(_SHORT_LIVED)


@contextmanager
def record(app: Flask) -> Generator[list[Published], None, None]:
    """Record the messages that an application publishes in this process, in a list that grows.

    The messages are still published. Messages that Redis has not accepted are left out. The
    data is the publisher's own object, not a copy.

    >>> from flask_sse.testing import record
    >>> with record(app) as published, app.app_context():
    ...     _ = sse.publish({"n": 1}, channel="numbers")
    >>> published == [("numbers", Message({"n": 1}))]
    True
    """
    published: list[Published] = []

    def note(_: Flask, *, channel: str, message: Message, **rest: object) -> None:
        del rest
        published.append(Published(channel, message))

    with message_published.connected_to(note, app):
        yield published


@contextmanager
def harness(app: Flask) -> Generator[Harness, None, None]:
    """Run an application on ``memory://``, record its published messages, and open its streams.

    Everything ends with the block.
    """
    with in_memory(app), record(app) as published, ExitStack() as streams:
        yield Harness(app, published, streams)


def _call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return function(*arguments, **named)


def _url_of(app: Flask) -> str:
    """Return the URL of the application's stream: a path, and the host if a rule names one."""
    endpoint = _endpoint_of(app)
    bound = app.create_url_adapter(None)
    host = "localhost" if bound is None else bound.server_name
    try:
        # Without a scheme, the test client chooses it.
        return app.url_map.bind(host, url_scheme="").build(endpoint)
    except BuildError as error:
        described = " and ".join(_describe(rule) for rule in app.url_map.iter_rules(endpoint))
        raise LookupError(
            f"the stream's URL can't be built: {endpoint} has the rule {described}; pass the URL "
            f"as url="
        ) from error


def _endpoint_of(app: Flask) -> str:
    """Return the endpoint of the application's stream."""
    registered = {
        f"{name}.stream": blueprint
        for name, blueprint in app.blueprints.items()
        if isinstance(blueprint, ServerSentEventsBlueprint)
    }
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint in registered]
    own = [rule for rule in rules if registered[rule.endpoint] is sse]
    endpoints: set[str] = {rule.endpoint for rule in own or rules}
    if not endpoints:
        raise LookupError(
            "the application has not registered flask_sse.sse; pass the URL of its stream as url="
        )
    if len(endpoints) > 1:
        listed = ", ".join(f"{rule.endpoint} at {_describe(rule)}" for rule in own or rules)
        raise LookupError(
            f"the application has more than one stream: {listed}; pass the URL of one as url="
        )
    return endpoints.pop()


def _describe(rule: Rule) -> str:
    place = f" of the host {rule.host!r}" if rule.host else ""
    place = f" of the subdomain {rule.subdomain!r}" if rule.subdomain else place
    # Werkzeug leaves the type out.
    arguments: set[str] = rule.arguments  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    needed = ", ".join(sorted(arguments - (rule.defaults or {}).keys()))
    return f"{rule.rule!r}{place}{f', which needs a value for {needed}' if needed else ''}"


def _with_channel(url: str, channel: str | None) -> str:
    if channel is None:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode({'channel': channel})}"


def _await_threads(names: set[str]) -> None:
    """Wait for threads that will soon end by themselves."""
    deadline = monotonic() + _REST_WITHIN
    for thread in threading.enumerate():
        if thread.name in names and type(thread) is threading.Thread:
            _join(thread, deadline)


def _join(thread: threading.Thread, deadline: float) -> None:
    while (left := deadline - monotonic()) > 0:
        # This raises an error as long as the thread is being started.
        with suppress(RuntimeError):
            thread.join(left)
            return
        time.sleep(_STARTING)
