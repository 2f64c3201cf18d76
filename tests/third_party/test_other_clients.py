"""A subclass returns something other than a plain client as `redis`: it works, or is refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio
from flask import Flask, g
from werkzeug.local import LocalProxy

from flask_sse import ServerSentEventsBlueprint
from tests.support.parser import Event
from tests.support.redis_server import RedisServer
from tests.support.wsgi import LocalStream, pieces_of

NewClient = Callable[[], Any]


class Wrapper:
    """Delegates to a client, as wrappers that measure or trace do."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class OwnPool(redis.ConnectionPool):
    """A pool of the application's own."""


class Silent:
    """Publishes, but returns nothing."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def publish(self, channel: str, message: str) -> None:
        """Publish, and return nothing."""
        self._client.publish(channel, message)


def _app_with(new_client: NewClient) -> tuple[Flask, ServerSentEventsBlueprint]:
    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            client: redis.StrictRedis = new_client()
            return client

    own = Own("own", __name__)
    own.add_url_rule("", endpoint="stream", view_func=own.stream)
    app = Flask("tests")
    app.testing = True
    app.register_blueprint(own, url_prefix="/stream")
    return app, own


@contextmanager
def _open_stream(app: Flask, channel: str) -> Iterator[LocalStream]:
    with app.test_client().get("/stream", query_string={"channel": channel}) as response:
        yield LocalStream(pieces_of(response))


def _plain(server: RedisServer) -> redis.StrictRedis:
    return redis.StrictRedis(port=server.port)


WORKING: list[Callable[[RedisServer], NewClient]] = [
    lambda server: lambda: Wrapper(_plain(server)),
    lambda server: lambda: redis.StrictRedis(connection_pool=OwnPool(port=server.port)),
    lambda server: (
        lambda: redis.StrictRedis(connection_pool=redis.BlockingConnectionPool(port=server.port))
    ),
    lambda server: lambda: redis.StrictRedis(port=server.port, single_connection_client=True),
    lambda server: lambda: redis.StrictRedis(port=server.port, decode_responses=True),
    lambda server: lambda: redis.StrictRedis(port=server.port, encoding="utf-16"),
    lambda _: _same(fakeredis.FakeStrictRedis()),
    lambda _: _of_server(fakeredis.FakeServer()),
]


def _same(client: redis.StrictRedis) -> NewClient:
    return lambda: client


def _of_server(server: fakeredis.FakeServer) -> NewClient:
    return lambda: fakeredis.FakeStrictRedis(server=server)


@pytest.mark.parametrize(
    "make",
    WORKING,
    ids=["wrapper", "own pool", "blocking", "single", "decoding", "utf-16", "fake", "fakes"],
)
def test_clients_that_work(
    shared_redis: RedisServer, channel: str, make: Callable[[RedisServer], NewClient]
) -> None:
    """They publish, stream and generate messages, through one connection for all listeners."""
    new_client = make(shared_redis)
    app, own = _app_with(new_client)
    with _open_stream(app, channel) as stream, _open_stream(app, channel) as other:
        with app.app_context():
            assert own.publish("x", channel=channel) == 1
        assert stream.events(1) == other.events(1) == [Event("message", "x", "")]


def test_a_proxy_that_means_nothing_outside_of_the_request(
    shared_redis: RedisServer, channel: str
) -> None:
    """With a proxy for a value of the request, the stream uses that Redis until it ends."""
    app, own = _app_with(lambda: LocalProxy(lambda: g.redis))

    @app.before_request
    def choose_redis() -> None:
        g.redis = _plain(shared_redis)

    with _open_stream(app, channel) as stream, app.app_context():
        g.redis = _plain(shared_redis)
        assert own.publish("x", channel=channel) == 1
        assert stream.events(1) == [Event("message", "x", "")]


REFUSED: list[tuple[Callable[[RedisServer], NewClient], str]] = [
    (lambda server: lambda: _plain(server).pipeline(), "not a pipeline or an asyncio client"),
    (lambda server: lambda: redis.asyncio.StrictRedis(port=server.port), "asyncio client"),
    (lambda server: lambda: Silent(_plain(server)), "of the type NoneType instead of the number"),
    (lambda _: lambda: None, r"redis must be a client such as redis\.StrictRedis, not .* NoneType"),
    (lambda _: lambda: "redis://:secret@h", r"redis must be a client such as .* type str"),
]


@pytest.mark.parametrize(
    ("make", "text"), REFUSED, ids=["pipeline", "asyncio", "silent", "None", "URL"]
)
def test_publish_refuses_what_does_not_publish(
    shared_redis: RedisServer, make: Callable[[RedisServer], NewClient], text: str
) -> None:
    """The error says what is needed."""
    app, own = _app_with(make(shared_redis))
    with app.app_context(), pytest.raises(TypeError, match=text) as caught:
        own.publish("x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "make", [make for make, _ in REFUSED[1:]], ids=["asyncio", "silent", "None", "URL"]
)
def test_listening_refuses_what_tells_no_address(
    shared_redis: RedisServer, make: Callable[[RedisServer], NewClient]
) -> None:
    """`messages` and the stream say what is needed, before anything is sent to the client."""
    app, own = _app_with(make(shared_redis))
    with app.test_request_context("/stream"):
        for attempt in (own.messages, own.stream):
            with pytest.raises(
                TypeError, match=r"and the stream, redis must be a redis\.StrictRedis"
            ) as caught:
                attempt()
            assert "secret" not in str(caught.value)
