"""The documented interface, on a real Redis and on the embedded one."""

import inspect
import json
import threading
from collections.abc import Callable
from datetime import date
from itertools import islice
from typing import Any

import pytest
import redis
from flask import Blueprint, Flask, Response, abort, request
from flask.json.provider import DefaultJSONProvider

import flask_sse
from flask_sse import Message, ServerSentEventsBlueprint, sse, testing
from flask_sse.testing import harness
from tests.support.parser import Event
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wsgi import open_stream, pieces_of

MakeApp = Callable[..., Flask]
NO_URL = "Must set a redis connection URL in app config."


def test_exported_names() -> None:
    """The package exports the documented names and nothing else."""
    assert flask_sse.__all__ == ["Message", "ServerSentEventsBlueprint", "sse"]
    assert ServerSentEventsBlueprint.__module__ == Message.__module__ == "flask_sse"
    # pytest adds names of its own, which are no identifiers, where it rewrites what asserts.
    names = filter(str.isidentifier, vars(flask_sse))
    public = {name for name in names if not name.startswith("_")}
    # A submodule is an attribute once somebody has imported it.
    submodules = {"history", "presence", "signals", "streams", "testing"}
    assert public - submodules == set(flask_sse.__all__)


def test_the_instance() -> None:
    """`sse` is a blueprint with the stream at its root."""
    assert isinstance(sse, ServerSentEventsBlueprint)
    assert isinstance(sse, Blueprint)
    assert (sse.name, sse.import_name) == ("sse", "flask_sse")
    app = Flask("tests")
    app.register_blueprint(sse, url_prefix="/events")
    with app.test_request_context():
        assert app.url_for("sse.stream") == "/events"
        assert app.url_for("sse.stream", channel="a b") == "/events?channel=a+b"


def test_headers(app: Flask, channel: str) -> None:
    """The headers keep caches and proxies from delaying the stream."""
    with app.test_client().get("/stream", query_string={"channel": channel}) as response:
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store, no-transform"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in response.headers


def test_publish_reaches_the_channels_stream_alone(app: Flask, channel: str) -> None:
    """From its first bytes on, a stream carries the events of its channel."""
    with open_stream(app, channel) as stream, open_stream(app, channel + "x") as other:
        assert stream.first == b":\n"
        with app.app_context():
            assert sse.publish({"n": 1}, type="count", id=7, retry=10, channel=channel) == 1
            assert sse.publish("other", channel=channel + "x") == 1
        assert stream.events(1) == [Event("count", '{"n": 1}', "7")]
        assert stream.parser.retry == 10
        assert other.events(1) == [Event("message", "other", "")]


def test_the_default_channel_is_sse(make_app: MakeApp) -> None:
    """Publishing and streaming without a channel, or with an empty one, mean `sse`."""
    with harness(make_app()) as tested:
        stream, empty = tested.open(), tested.open("")
        with tested.app.app_context():
            sse.publish("hello")
        assert stream.get() == empty.get() == Message("hello")
        assert tested.published == [("sse", Message("hello"))]


@pytest.mark.parametrize("name", ["users.social", "a b&c=d/?#", "ünïcode \U0001f980", "x" * 5000])
def test_a_channel_can_have_any_name(make_app: MakeApp, redis_url: str, name: str) -> None:
    """In Redis, a channel has its plain name, in UTF-8."""
    app = make_app(REDIS_URL=redis_url)
    with open_stream(app, name) as stream:
        with app.app_context():
            assert sse.publish("x", channel=name) == 1
            assert sse.redis.publish(name, '{"data": "plain"}') == 1
        assert [event.data for event in stream.events(2)] == ["x", "plain"]


def test_messages_yields_what_was_published(app: Flask, channel: str) -> None:
    """`messages` is a generator of equal messages; `close` unsubscribes."""
    sent = [Message({"n": [1, "ü"]}, type="t", id="i", retry=0), Message("text"), Message(None)]
    with app.app_context():
        messages = sse.messages(channel)
        assert inspect.getgeneratorstate(messages) == inspect.GEN_CREATED
        received: list[Message] = []
        reader = threading.Thread(target=lambda: received.extend(islice(messages, len(sent))))
        reader.start()
        wait_until(lambda: sse.redis.pubsub_numsub(channel)[0][1], "subscribed")
        for message in sent:
            assert sse.publish(**message.to_dict(), channel=channel) == 1
        reader.join(PATIENCE)
        assert received == sent
        messages.close()
        wait_until(lambda: not sse.redis.pubsub_numsub(channel)[0][1], "unsubscribed")


def test_messages_needs_no_context_while_it_waits(app: Flask, channel: str) -> None:
    """`messages` needs the context for the call only, not afterwards."""
    with app.app_context():
        messages = sse.messages(channel)
        client = sse.redis
    reader = threading.Thread(target=lambda: received.append(next(messages)))
    received: list[Message] = []
    reader.start()
    wait_until(lambda: client.pubsub_numsub(channel)[0][1], "subscribed")
    client.publish(channel, '{"data": "x"}')
    reader.join(PATIENCE)
    assert received == [Message("x")]
    messages.close()


def test_a_closed_stream_unsubscribes(app: Flask, channel: str) -> None:
    """The first client subscribes to a channel, once, and the last one unsubscribes."""
    with app.app_context():

        def listeners() -> int:
            return int(sse.redis.pubsub_numsub(channel)[0][1])

        with open_stream(app, channel):
            with open_stream(app, channel):
                assert listeners() == 1
            with open_stream(app, channel):
                assert listeners() == 1
        wait_until(lambda: listeners() == 0, "unsubscribed")


def test_a_response_that_is_never_read_subscribes_to_nothing(app: Flask, channel: str) -> None:
    """If a response is replaced or discarded, no subscription is left behind."""

    @app.after_request
    def replace(response: Response) -> Response:
        return Response("replaced")

    answer = app.test_client().get("/stream", query_string={"channel": channel})
    assert answer.text == "replaced"
    with app.app_context():
        assert sse.redis.pubsub_channels(channel) == []


def test_head_subscribes_to_nothing(app: Flask, channel: str) -> None:
    """HEAD returns the headers of GET."""
    answer = app.test_client().head("/stream", query_string={"channel": channel})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert "Content-Length" not in answer.headers
    with app.app_context():
        assert sse.redis.pubsub_channels(channel) == []


def test_before_request_comes_first(make_app: MakeApp) -> None:
    """A client that access control refuses does not subscribe."""
    blueprint = ServerSentEventsBlueprint("guarded", __name__)
    blueprint.add_url_rule("", endpoint="stream", view_func=blueprint.stream)

    @blueprint.before_request
    def check_access() -> None:
        if request.args.get("channel") == "analytics":
            abort(403)

    app = make_app(REDIS_URL="memory://")
    app.register_blueprint(blueprint, url_prefix="/guarded")
    assert app.test_client().get("/guarded?channel=analytics").status_code == 403
    with app.app_context():
        assert blueprint.redis.pubsub_channels() == []
    with app.test_client().get("/guarded?channel=users") as allowed:
        assert next(pieces_of(allowed)) == b":\n"


def test_last_event_id_is_ignored(app: Flask, channel: str) -> None:
    """Without history, a returning client gets only new events."""
    with app.app_context():
        sse.publish("before", id=1, channel=channel)
        headers = {"Last-Event-ID": "0"}
        query = {"channel": channel}
        with app.test_client().get("/stream", query_string=query, headers=headers) as response:
            pieces = pieces_of(response)
            assert next(pieces) == b":\n"
            sse.publish("after", id=2, channel=channel)
            assert next(pieces) == b"data:after\nid:2\n\n"


def test_the_response_is_of_the_applications_class(make_app: MakeApp) -> None:
    """The application's own response class makes the response."""

    class Answer(Response):
        pass

    app = make_app(REDIS_URL="memory://")
    app.response_class = Answer
    with app.test_request_context("/stream"):
        assert type(sse.stream()) is Answer


def test_the_applications_json_provider_is_used(make_app: MakeApp, redis_url: str) -> None:
    """Redis and streams both carry the application's own JSON."""

    class Provider(DefaultJSONProvider):
        @staticmethod
        def default(o: Any) -> Any:
            return f"the {o.day}th" if isinstance(o, date) else DefaultJSONProvider.default(o)

    app = make_app(REDIS_URL=redis_url)
    app.json = Provider(app)
    Provider.sort_keys = False
    with open_stream(app, "json") as stream, app.app_context():
        sse.publish({"b": date(2026, 11, 22), "a": 1}, channel="json")
        [event] = stream.events(1)
    assert event.data == '{"b": "the 22th", "a": 1}'


def test_the_payload_is_that_of_flask_sse_1(make_app: MakeApp, shared_redis: RedisServer) -> None:
    """Redis carries the JSON of `to_dict`, so that 1.0 and other languages can listen."""
    app = make_app(REDIS_URL=shared_redis.url)
    with shared_redis.admin.pubsub() as listener, app.app_context():
        listener.subscribe("payload")
        wait_until(lambda: listener.get_message(timeout=0.1), "confirmed")
        sse.publish({"n": 1}, type="t", id=3, channel="payload")
        heard: list[dict[str, Any]] = []

        def hear() -> bool:
            message = listener.get_message(timeout=0.1)
            heard.extend([message] if message else [])
            return bool(heard)

        wait_until(hear, "heard")
    assert json.loads(heard[0]["data"]) == {"data": {"n": 1}, "type": "t", "id": 3}


@pytest.mark.parametrize(
    "payload",
    [
        b"no JSON",
        b"\xff",
        b"[]",
        b"{}",
        b'"text"',
        b'{"data": 1, "type": "a\\nb"}',
        b'{"data": 1, "type": ["a"]}',
        b'{"data": 1, "id": "a\\u0000"}',
        b'{"data": 1, "retry": "soon"}',
        b'{"data": 1, "retry": -5}',
        b'{"data": "\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_malformed_payloads_are_dropped(
    app: Flask, channel: str, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Malformed events are logged, and do not end the stream."""
    with open_stream(app, channel) as stream, app.app_context():
        sse.redis.publish(channel, payload)
        sse.publish("sound", channel=channel)
        assert stream.events(1) == [Event("message", "sound", "")]
    assert f"dropped malformed event number 1, on channel '{channel}'" in caplog.text


@pytest.mark.parametrize(
    ("payload", "frame"),
    [
        ('{"data": "x", "type": 12}', "event:12\ndata:x\n\n"),
        ('{"data": "x", "type": true}', "event:True\ndata:x\n\n"),
        ('{"data": "x", "type": false}', "data:x\n\n"),
        ('{"data": "x", "id": 1.5}', "data:x\nid:1.5\n\n"),
        ('{"data": "x", "id": 1e400}', "data:x\nid:inf\n\n"),
        ('{"data": "x", "id": 12345678901234567890}', "data:x\nid:12345678901234567890\n\n"),
        ('{"data": "x", "retry": "5000"}', "data:x\nretry:5000\n\n"),
        ('{"data": "x", "retry": 1000.0}', "data:x\nretry:1000\n\n"),
        ('{"data": "x", "retry": ""}', "data:x\n\n"),
    ],
)
def test_payloads_of_other_publishers(app: Flask, channel: str, payload: str, frame: str) -> None:
    """Events that 1.0 delivers, from a publisher with 1.0 or in another language, are delivered."""
    with open_stream(app, channel) as stream, app.app_context():
        sse.redis.publish(channel, payload)
        assert stream.read().decode() == frame


def test_unknown_keys_and_nulls_are_passed_over(app: Flask, channel: str) -> None:
    """A publisher in another language may say null, and a later version may say more."""
    with open_stream(app, channel) as stream, app.app_context():
        sse.redis.publish(channel, '{"data": "x", "type": null, "id": null, "more": 1}')
        assert stream.events(1) == [Event("message", "x", "")]


BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"data": object()}, TypeError, "object"),
    ({"data": b"bytes"}, TypeError, "bytes"),
    ({"data": "\ud800"}, ValueError, r"lone surrogate '\\ud800'"),
    ({"data": "x", "type": "\udfff"}, ValueError, r"lone surrogate '\\udfff'"),
    ({"data": "x", "id": "\ud800"}, ValueError, r"lone surrogate '\\ud800'"),
    ({"data": "x", "type": "a\nb"}, ValueError, "type must not contain"),
    ({"data": "x", "id": "a\0"}, ValueError, "id must not contain"),
    ({"data": "x", "retry": -1}, ValueError, "retry must be"),
    ({"data": "x", "type": ["a"]}, TypeError, "type must be a str or None, not"),
    ({"data": "x", "retry": "soon"}, ValueError, "retry must be a number of milliseconds"),
    ({"data": "x", "channel": True}, TypeError, "channel must be a str, not True"),
    ({"data": "x", "channel": None}, TypeError, "channel must be a str, not None"),
    ({"data": "x", "channel": ["sse"]}, TypeError, "channel must be a str, not"),
    ({"data": "x", "channel": "\ud800"}, ValueError, "channel must be text that UTF-8 can"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD_ARGUMENTS)
def test_publish_refuses_bad_arguments(
    make_app: MakeApp, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """Each bad argument is named, and nothing is sent."""
    app = make_app(REDIS_URL="memory://")
    with open_stream(app) as stream, app.app_context():
        with pytest.raises(error, match=text):
            sse.publish(**arguments)
        sse.publish("next")
        assert stream.events(1) == [Event("message", "next", "")]


@pytest.mark.parametrize(
    ("given", "name"),
    [(7, "7"), (1.5, "1.5"), (b"sse", "sse"), (bytearray(b"caf\xc3\xa9"), "café")],
)
def test_a_channel_that_is_no_text(make_app: MakeApp, given: Any, name: str) -> None:
    """A number, or bytes as `PUBSUB CHANNELS` answers, name a channel to publish and listen to."""
    app = make_app(REDIS_URL="memory://")
    with open_stream(app, name) as stream, app.app_context():
        messages = sse.messages(given)
        received: list[Message] = []
        reader = threading.Thread(target=lambda: received.append(next(messages)))
        reader.start()
        wait_until(lambda: sse.publish("x", channel=given) and received, "received")
        reader.join(PATIENCE)
        messages.close()
        assert received == [Message("x")]
        assert stream.events(1)[0] == Event("message", "x", "")


def test_messages_refuses_a_bad_channel(make_app: MakeApp) -> None:
    """A channel has a name."""
    with make_app(REDIS_URL="memory://").app_context():
        with pytest.raises(TypeError, match="channel must be a str, not None"):
            sse.messages(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="channel must be text"):
            sse.messages("\ud800")


@pytest.mark.parametrize(
    "config",
    [{}, {"REDIS_URL": None}, {"REDIS_URL": ""}, {"SSE_REDIS_URL": None, "REDIS_URL": None}],
)
def test_a_missing_url_is_a_key_error(make_app: MakeApp, config: dict[str, Any]) -> None:
    """Publishing, listening and streaming all say that the URL is missing, every time."""
    app = make_app(**config)
    with app.test_request_context("/stream"):
        for _ in range(2):
            for attempt in (
                lambda: sse.publish("x"),
                sse.messages,
                sse.stream,
                lambda: sse.redis,
            ):
                with pytest.raises(KeyError) as caught:
                    attempt()
                assert caught.value.args == (NO_URL,)
    assert app.test_client().get("/stream").status_code == 500


def test_sse_redis_url_goes_first(make_app: MakeApp, shared_redis: RedisServer) -> None:
    """`SSE_REDIS_URL` takes precedence over `REDIS_URL`."""
    app = make_app(SSE_REDIS_URL=shared_redis.url + "/3", REDIS_URL="redis://unused")
    with app.app_context():
        assert sse.redis.connection_pool.connection_kwargs["db"] == 3
        assert sse.redis.ping()


def test_redis_is_one_client_an_application(make_app: MakeApp, redis_url: str) -> None:
    """`redis` is a `redis.StrictRedis`, made once for each application."""
    first, second = make_app(REDIS_URL=redis_url), make_app(REDIS_URL=redis_url)
    with first.app_context():
        client = sse.redis
        assert isinstance(client, redis.StrictRedis)
        assert sse.redis is client
    with second.app_context():
        assert sse.redis is not client


def test_outside_of_an_application_context(make_app: MakeApp) -> None:
    """Flask's own error says that the context is missing."""
    with pytest.raises(RuntimeError, match="application context"):
        sse.publish("x")


def test_a_subclass_may_bring_its_own_redis(shared_redis: RedisServer) -> None:
    """Publish, messages and stream use the `redis` of a subclass, and no URL is needed."""

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return redis.StrictRedis(port=shared_redis.port, decode_responses=True)

    own = Own("own", __name__)
    own.add_url_rule("", endpoint="stream", view_func=own.stream)
    app = Flask("tests")
    app.register_blueprint(own, url_prefix="/stream")
    before = shared_redis.pubsub_connections()
    with open_stream(app, "own") as stream, open_stream(app, "own2"), app.app_context():
        assert own.publish("x", channel="own") == 1
        assert stream.events(1) == [Event("message", "x", "")]
        assert shared_redis.pubsub_connections() == before + 1


def test_a_redis_for_each_tenant(shared_redis: RedisServer, redis_server: RedisServer) -> None:
    """A `redis` that depends on the request can return clients of several Redis servers."""
    ports = {"a": shared_redis.port, "b": redis_server.port}

    class Tenants(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return redis.StrictRedis(port=ports[request.args["tenant"]])

    tenants = Tenants("tenants", __name__)
    tenants.add_url_rule("", endpoint="stream", view_func=tenants.stream)
    app = Flask("tests")
    app.register_blueprint(tenants, url_prefix="/stream")
    client = app.test_client()
    with client.get("/stream?tenant=a") as first, client.get("/stream?tenant=b") as second:
        streams = {"a": pieces_of(first), "b": pieces_of(second)}
        for tenant, stream in streams.items():
            assert next(stream) == b":\n"
            with app.test_request_context(f"/?tenant={tenant}"):
                assert tenants.publish(f"secret of {tenant}") == 1
        for tenant, stream in streams.items():
            assert next(stream) == f"data:secret of {tenant}\n\n".encode()


def test_close_ends_a_reader(make_app: MakeApp) -> None:
    """A server that closes the body from another thread ends the thread that reads it."""
    app = make_app(REDIS_URL="memory://", SSE_KEEPALIVE=None)
    response = app.test_client().get("/stream")
    pieces = pieces_of(response)
    assert next(pieces) == b":\n"
    reader = threading.Thread(target=lambda: rest.extend(pieces))
    rest: list[bytes] = []
    reader.start()
    response.close()
    reader.join(PATIENCE)
    assert not reader.is_alive()
    assert rest == []


def test_a_failure_to_open_gives_the_place_back(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that could not be opened does not use up one of the `SSE_MAX_CLIENTS` places."""
    app = make_app(REDIS_URL="memory://", SSE_MAX_CLIENTS=1)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", _refuse_to_start)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                app.test_client().get("/stream")
    with open_stream(app) as stream:
        assert stream.first == b":\n"


def _refuse_to_start(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_two_applications_do_not_meet(make_app: MakeApp) -> None:
    """Applications with separate Redis servers do not receive each other's events."""
    with harness(make_app()) as first, harness(make_app()) as second:
        stream, other = first.open(), second.open()
        with first.app.app_context():
            assert sse.publish("first") == 1
        with second.app.app_context():
            assert sse.publish("second") == 1
        assert stream.get() == Message("first")
        assert other.get() == Message("second")


def test_two_blueprints_share_the_applications_connection(shared_redis: RedisServer) -> None:
    """Two blueprints of one application listen through one connection."""
    other = ServerSentEventsBlueprint("other", __name__)
    other.add_url_rule("", endpoint="stream", view_func=other.stream)
    app = Flask("tests")
    app.config["REDIS_URL"] = shared_redis.url
    app.register_blueprint(sse, url_prefix="/stream")
    app.register_blueprint(other, url_prefix="/other")
    before = shared_redis.pubsub_connections()
    with (
        testing.open_stream(app, "one") as stream,
        testing.open_stream(app, "one", url="/other") as same,
    ):
        assert shared_redis.pubsub_connections() == before + 1
        with app.app_context():
            other.publish("x", channel="one")
        assert stream.get() == same.get() == Message("x")


def test_teardown_runs_when_the_view_returns(app: Flask, channel: str) -> None:
    """A waiting stream does not hold a context, so sessions are returned at once."""
    torn_down: list[str] = []
    app.teardown_appcontext(lambda _: torn_down.append("app"))
    app.teardown_request(lambda _: torn_down.append("request"))
    with open_stream(app, channel):
        assert torn_down == ["request", "app"]


def test_retry_is_told_first(make_app: MakeApp, redis_url: str) -> None:
    """A stream begins with `SSE_RETRY`."""
    with open_stream(make_app(REDIS_URL=redis_url, SSE_RETRY=250), "retry") as stream:
        assert stream.first == b"retry:250\n"


def test_a_comment_after_silence(make_app: MakeApp, redis_url: str) -> None:
    """Each `SSE_KEEPALIVE` seconds of silence end with a comment."""
    with open_stream(make_app(REDIS_URL=redis_url, SSE_KEEPALIVE=0.05), "silent") as stream:
        assert [stream.read() for _ in range(3)] == [b":\n"] * 3


@pytest.mark.parametrize("value", [None, 0])
def test_no_comment_without_keepalive(make_app: MakeApp, value: int | None) -> None:
    """Without `SSE_KEEPALIVE`, nothing is sent before the next event."""
    app = make_app(REDIS_URL="memory://", SSE_KEEPALIVE=value)
    with open_stream(app) as stream:
        timer = threading.Timer(0.3, _publish, [app, "late"])
        timer.start()
        assert stream.read() == b"data:late\n\n"
        timer.join()


def test_a_burst_is_read_in_few_pieces(app: Flask, channel: str) -> None:
    """Events that have arrived in the meantime are read as one piece of whole frames."""
    with open_stream(app, channel) as stream, app.app_context():
        for number in range(500):
            sse.publish(str(number), channel=channel)
        events = stream.events(500)
    assert [event.data for event in events] == [str(number) for number in range(500)]


def test_max_clients(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """A client at the limit is told to reconnect, and gets a stream after another has left."""
    app = make_app(REDIS_URL="memory://", SSE_MAX_CLIENTS=1, SSE_RETRY=1000)
    with open_stream(app):
        for _ in range(3):
            with open_stream(app) as refused:
                assert 1000 <= int(refused.first.removeprefix(b"retry:")) <= 2000
                assert refused.read() == b""
        assert caplog.text.count("SSE_MAX_CLIENTS is reached") == 1
    with open_stream(app) as admitted:
        assert admitted.first == b"retry:1000\n"


def test_who_reads_too_slowly_is_cut_off(
    make_app: MakeApp, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream ends if more than `SSE_MAX_PENDING` bytes wait for it; others continue."""
    app = make_app(REDIS_URL=redis_url, SSE_MAX_PENDING=10_000)
    received: list[str] = []
    with open_stream(app, "slow") as slow, open_stream(app, "slow") as quick:
        with app.app_context():
            for number in range(300):
                sse.publish("x" * 100, channel="slow")
                received = [event.data for event in quick.events(number + 1)]
        assert received == ["x" * 100] * 300
        wait_until(lambda: "SSE_MAX_PENDING" in caplog.text, "cut off")
        assert slow.read() == b""
    assert caplog.text.count("is disconnected: more than") == 1


def test_messages_read_too_slowly_says_so(make_app: MakeApp, redis_url: str) -> None:
    """A loop over `messages` gets an error if it has missed something."""
    app = make_app(REDIS_URL=redis_url, SSE_MAX_PENDING=1000)
    with app.app_context(), open_stream(app, "slow") as stream:
        messages = sse.messages("slow")
        starter = threading.Thread(target=lambda: next(messages))
        starter.start()
        wait_until(lambda: _publish(app, "first", "slow") and not starter.is_alive(), "started")
        for number in range(100):
            sse.publish("x" * 100, channel="slow")
            stream.events(number + 2)
        with pytest.raises(BufferError, match="SSE_MAX_PENDING"):
            for _ in messages:
                pass


def test_memory_refuses_several_processes(make_app: MakeApp) -> None:
    """The embedded Redis would lose events between processes, and says so instead."""
    app = make_app(REDIS_URL="memory://")
    app.testing = True
    # Other servers may say so without knowing.
    environ = {"SERVER_SOFTWARE": "gunicorn/22.0", "wsgi.multiprocess": True}
    with pytest.raises(RuntimeError, match=r"one process only.*set REDIS_URL"):
        app.test_client().get("/stream", environ_overrides=environ)
    with (
        app.test_request_context("/", environ_overrides=environ),
        pytest.raises(RuntimeError, match="one process only"),
    ):
        sse.publish("x")


def _publish(app: Flask, data: str, channel: str = "sse") -> bool:
    with app.app_context():
        return sse.publish(data, channel=channel) >= 0
