"""The documentation of 1.0, sentence by sentence, on a real Redis, and partly on a Redis Cluster.

Each test's docstring quotes or summarizes the sentence that it checks. Nothing here uses
features that 2.0 has added.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest
import redis
from flask import Blueprint, Flask, abort, g, request
from flask.json.provider import DefaultJSONProvider

import flask_sse
from flask_sse import Message, ServerSentEventsBlueprint, sse
from tests.support.listening import listening
from tests.support.parser import Event
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE
from tests.support.wsgi import open_stream, pieces_of

MakeApp = Callable[..., Flask]


@pytest.fixture
def app(make_app: MakeApp, shared_redis: RedisServer) -> Flask:
    """Return an application as the quickstart has it."""
    return make_app(REDIS_URL=shared_redis.url)


@pytest.fixture(params=["redis", "cluster"])
def any_redis(request: pytest.FixtureRequest) -> RedisServer | RedisCluster:
    """Return a Redis, and a Redis Cluster."""
    server: RedisServer | RedisCluster = request.getfixturevalue(f"shared_{request.param}")
    return server


@pytest.fixture
def any_app(make_app: MakeApp, any_redis: RedisServer | RedisCluster) -> Flask:
    """Return an application as the quickstart has it, on both."""
    return make_app(REDIS_URL=any_redis.url)


@contextmanager
def _hearing(
    app: Flask, server: RedisServer | RedisCluster, channel: str, number: int
) -> Iterator[list[Message]]:
    """Fill a list with the next messages of a channel, until the block ends."""
    with app.app_context():
        messages = sse.messages(channel=channel)
    heard: list[Message] = []
    reader = threading.Thread(target=lambda: heard.extend(islice(messages, number)))
    reader.start()
    if isinstance(server, RedisCluster):
        server.wait_subscribers(1, channel.encode())
    else:
        server.wait_listeners(1, channel)
    yield heard
    reader.join(PATIENCE)
    messages.close()


def test_message_with_data_alone() -> None:
    """`Message(data)`: the other three are optional."""
    message = Message("Hello!")
    assert (message.data, message.type, message.id, message.retry) == ("Hello!", None, None, None)
    assert str(message) == "data:Hello!\n\n"


def test_message_with_everything() -> None:
    """`Message(data, type, id, retry)`, by position and by name."""
    message = Message("Hello!", "greeting", "42", 3000)
    assert message == Message(retry=3000, id="42", type="greeting", data="Hello!")
    assert str(message) == "event:greeting\ndata:Hello!\nid:42\nretry:3000\n\n"


def test_message_of_several_lines() -> None:
    """`__str__` follows the specification: each line of the data is a field of its own."""
    assert str(Message("one\ntwo", type="lines")) == "event:lines\ndata:one\ndata:two\n\n"


def test_message_data_is_serialized_to_json() -> None:
    """Data that is not a string is serialized to JSON."""
    assert str(Message({"message": "Hello!"})) == 'data:{"message": "Hello!"}\n\n'


def test_message_uses_the_applications_encoder() -> None:
    """It is serialized using the Flask application's JSON encoder."""

    class Provider(DefaultJSONProvider):
        @staticmethod
        def default(o: Any) -> Any:
            return "anything"

    app = Flask("tests")
    app.json = Provider(app)
    with app.app_context():
        assert str(Message({"key": object()})) == 'data:{"key": "anything"}\n\n'


def test_to_dict_is_minimal() -> None:
    """`to_dict()` is a minimal dictionary, for storing in Redis."""
    assert Message("Hello!").to_dict() == {"data": "Hello!"}
    assert Message([1], type="t").to_dict() == {"data": [1], "type": "t"}


def test_to_dict_with_everything() -> None:
    """What is given is stored."""
    everything = {"data": "Hello!", "type": "greeting", "id": 42, "retry": 3000}
    message = Message("Hello!", type="greeting", id=42, retry=3000)
    assert message.to_dict() == everything


def test_blueprint_is_a_blueprint(tmp_path: Path) -> None:
    """`ServerSentEventsBlueprint` is a `flask.Blueprint` with the same constructor."""
    own = ServerSentEventsBlueprint(
        "own", __name__, url_prefix="/own", url_defaults={"a": 1}, root_path=str(tmp_path)
    )
    assert isinstance(own, Blueprint)
    assert (own.name, own.url_prefix, own.root_path) == ("own", "/own", str(tmp_path))


def test_instance_has_the_stream_at_its_root(app: Flask) -> None:
    """`sse` hooks up `stream` as a view function at the root of the blueprint."""
    with app.test_request_context():
        assert app.url_for("sse.stream") == "/stream"
        assert app.url_for("sse.stream", channel="users.social") == "/stream?channel=users.social"
    with app.test_client().get("/stream") as response:
        assert response.status_code == 200
        assert response.mimetype == "text/event-stream"


def test_publish_stores_the_event(app: Flask, shared_redis: RedisServer) -> None:
    """`publish(data, type)` publishes the stored form; the default channel is "sse"."""
    with app.app_context(), listening(shared_redis.admin, "sse") as listener:
        sse.publish({"message": "Hello!"}, type="greeting")
        assert listener.payloads(1) == [{"data": {"message": "Hello!"}, "type": "greeting"}]


def test_publish_with_everything(app: Flask, shared_redis: RedisServer) -> None:
    """`publish(data, type, id, retry, channel)`, by position."""
    with app.app_context(), listening(shared_redis.admin, "users.social") as listener:
        sse.publish("Hello!", "greeting", "42", 3000, "users.social")
        assert listener.payloads(1) == [
            {"data": "Hello!", "type": "greeting", "id": "42", "retry": 3000}
        ]


def test_only_clients_of_the_channel_receive_the_event(any_app: Flask) -> None:
    """Only clients listening to the same channel will receive this event."""
    with (
        open_stream(any_app, "analytics") as analytics,
        open_stream(any_app, "users.social") as social,
    ):
        with any_app.app_context():
            sse.publish({"user": "alice"}, channel="users.social")
            sse.publish({"active_users": 100}, channel="analytics")
        assert social.events(1) == [Event("message", '{"user": "alice"}', "")]
        assert analytics.events(1) == [Event("message", '{"active_users": 100}', "")]


def test_a_channel_is_created_when_it_is_named(
    any_app: Flask, any_redis: RedisServer | RedisCluster
) -> None:
    """Channel names can be any string you want, and are created as soon as they are named."""
    name = "any string: ünïcode, spaces & signs?"
    with _hearing(any_app, any_redis, name, 1) as heard, any_app.app_context():
        sse.publish("Hello!", channel=name)
    assert heard == [Message("Hello!")]


def test_messages_generates_messages(
    any_app: Flask, any_redis: RedisServer | RedisCluster, channel: str
) -> None:
    """`messages(channel)` is a generator of `Message` objects from the given channel."""
    sent = [Message("Hello!", type="greeting", id="1"), Message({"n": [1, 2]}, retry=5)]
    with _hearing(any_app, any_redis, channel, 2) as heard, any_app.app_context():
        for message in sent:
            sse.publish(message.data, message.type, message.id, message.retry, channel)
    assert heard == sent


def test_stream_of_the_default_channel(any_app: Flask) -> None:
    """`stream()` streams the events of the channel "sse"."""
    with open_stream(any_app) as stream:
        with any_app.app_context():
            sse.publish({"message": "Hello!"}, type="greeting")
        assert stream.events(1) == [Event("greeting", '{"message": "Hello!"}', "")]


def test_stream_ignores_last_event_id(any_app: Flask, channel: str) -> None:
    """`stream()` ignores any Last-Event-ID headers in the HTTP request."""
    with any_app.app_context():
        sse.publish("missed", id=1, channel=channel)
    with any_app.test_client().get(
        f"/stream?channel={channel}", headers={"Last-Event-ID": "0"}
    ) as response:
        pieces = pieces_of(response)
        next(pieces)
        with any_app.app_context():
            sse.publish("seen", id=2, channel=channel)
        assert next(pieces) == b"data:seen\nid:2\n\n"


def test_redis_is_a_strict_redis(app: Flask) -> None:
    """`redis` is a `redis.StrictRedis` instance for the current application's server."""
    with app.app_context():
        assert isinstance(sse.redis, redis.StrictRedis)
        assert sse.redis.set("key", "value")
        assert sse.redis.get("key") == b"value"


@pytest.mark.parametrize("key", ["SSE_REDIS_URL", "REDIS_URL"])
def test_the_url_of_redis(make_app: MakeApp, shared_redis: RedisServer, key: str) -> None:
    """Either of the two configuration values is used."""
    with make_app(**{key: shared_redis.url}).app_context():
        assert sse.redis.ping()


def test_the_order_of_the_urls(
    make_app: MakeApp, shared_redis: RedisServer, redis_server: RedisServer
) -> None:
    """They are tried in order: `SSE_REDIS_URL`, then `REDIS_URL`."""
    app = make_app(SSE_REDIS_URL=redis_server.url, REDIS_URL=shared_redis.url)
    with app.app_context(), listening(redis_server.admin) as listener:
        sse.publish("x")
        assert listener.payloads(1) == [{"data": "x"}]


def test_a_password_in_the_url(make_app: MakeApp, tmp_path: Path) -> None:
    """A Redis server that has a password is used by `redis://:password@localhost`."""
    server = RedisServer(tmp_path, requirepass="password")
    server.start()
    try:
        app = make_app(REDIS_URL=server.url.replace("//", "//:password@"))
        with app.app_context(), open_stream(app) as stream:
            sse.publish("x")
            assert stream.events(1) == [Event("message", "x", "")]
    finally:
        server.stop()


def test_no_url_is_a_key_error(make_app: MakeApp) -> None:
    """A KeyError is raised any time a client opens the stream or an event is published."""
    app = make_app()
    app.testing = True
    for _ in range(2):
        with pytest.raises(KeyError):
            app.test_client().get("/stream")
        with app.app_context(), pytest.raises(KeyError):
            sse.publish("x")
    with app.app_context(), pytest.raises(KeyError):
        sse.redis.ping()


def test_access_control(make_app: MakeApp, any_redis: RedisServer | RedisCluster) -> None:
    """A `before_request` handler implements access control, as the example has it."""
    own = ServerSentEventsBlueprint("own", __name__)
    own.add_url_rule("", endpoint="stream", view_func=own.stream)

    @own.before_request
    def check_access() -> None:
        g.is_admin = "admin" in request.args
        if request.args.get("channel") == "analytics" and not g.is_admin:
            abort(403)

    app = make_app(REDIS_URL=any_redis.url)
    app.register_blueprint(own, url_prefix="/own")
    client = app.test_client()
    assert client.get("/own?channel=analytics").status_code == 403
    for path in ("/own", "/own?channel=users", "/own?channel=analytics&admin=1"):
        with client.get(path) as response:
            assert response.status_code == 200


def test_publish_can_be_patched(any_app: Flask) -> None:
    """A test of an application may put a mock in the place of `sse.publish`, for a while."""
    with patch("flask_sse.sse.publish") as publish, any_app.app_context():
        sse.publish({"message": "Hello!"}, type="greeting")
    publish.assert_called_once_with({"message": "Hello!"}, type="greeting")
    with any_app.app_context():
        assert sse.publish("Hello!", channel="nobody") == 0


def test_redis_can_be_patched(any_app: Flask) -> None:
    """A test may put a mock in the place of `redis` and look at what is published."""
    target = "flask_sse.ServerSentEventsBlueprint.redis"
    with patch(target, new_callable=PropertyMock) as mock, any_app.app_context():
        sse.publish("Hello!", type="greeting", channel="users")
    (channel, payload), _ = mock.return_value.publish.call_args
    assert channel == b"users"
    assert json.loads(payload) == {"data": "Hello!", "type": "greeting"}


def test_exported_names() -> None:
    """`flask_sse` has `Message`, `ServerSentEventsBlueprint` and `sse`."""
    assert {"Message", "ServerSentEventsBlueprint", "sse"} <= set(dir(flask_sse))
