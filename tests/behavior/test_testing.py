"""`flask_sse.testing`: its results, and that it restores everything and leaves nothing behind."""

import re
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from flask import Blueprint, Flask, Response, abort, g, request, session
from freezegun import freeze_time

from _flask_sse_pytest import sse_harness
from flask_sse import Message, ServerSentEventsBlueprint, sse
from flask_sse.testing import Harness, harness, in_memory, open_stream, record
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["sse_harness"]
"""The fixture, which pytest finds here as it does if the package is installed."""

MakeApp = Callable[..., Flask]
Make = Callable[[Flask], Harness]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Check that every test ends with the same threads as it began."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def tested(make_app: MakeApp, sse_harness: Make) -> Harness:
    """Return the harness of an application whose settings name a Redis that does not exist."""
    return sse_harness(make_app(REDIS_URL="redis://127.0.0.1:1"))


def publish(tested: Harness, *data: object, **fields: Any) -> None:
    """Publish as the application under test."""
    with tested.app.app_context():
        for each in data:
            sse.publish(each, **fields)


def test_a_message_with_all_its_fields(tested: Harness) -> None:
    """A stream returns the published message, and both compare equal in either order."""
    stream = tested.open("users")
    publish(tested, {"n": 1}, type="count", id=7, retry=10, channel="users")
    message = stream.get()
    assert (message.data, message.type, message.id, message.retry) == (
        '{"n": 1}',
        "count",
        "7",
        10,
    )
    assert message.json == {"n": 1}
    expected = Message({"n": 1}, type="count", id=7, retry=10)
    assert message == expected
    assert expected == message
    for other in (Message({"n": 2}, "count", 7, 10), Message({"n": 1}, "count", 7), "count"):
        assert message != other
        assert other != message


@pytest.mark.parametrize(
    "data",
    [
        "text",
        "",
        " two\nlines\n",
        "42",
        42,
        None,
        [1, (2,)],
        {1: datetime(2026, 11, 25, tzinfo=UTC)},
        "\r\n",
    ],
    ids=repr,
)
def test_any_data(tested: Harness, data: object) -> None:
    """A published message equals the received one, even if JSON and the stream have changed it."""
    stream = tested.open()
    publish(tested, data)
    assert stream.get() == Message(data)


def test_waiting_has_a_bound(tested: Harness) -> None:
    """Without a message, there is an error with the timeout and the number of messages."""
    stream = tested.open(timeout=0.02)
    with pytest.raises(TimeoutError, match=r"within 0\.02 s, after 0 messages"):
        stream.get()
    publish(tested, "one", "two")
    assert [stream.get(5), stream.get(5)] == [Message("one"), Message("two")]
    with pytest.raises(TimeoutError, match="within 0 s, after 2 messages"):
        stream.get(timeout=0)


def test_a_message_that_comes_later(tested: Harness) -> None:
    """A stream waits for what another thread publishes."""
    stream = tested.open()
    thread = threading.Thread(target=publish, args=(tested, "later"))
    thread.start()
    assert stream.get() == Message("later")
    thread.join()


def test_streams_of_several_channels(tested: Harness) -> None:
    """Each stream gets the messages of its channel, in order, and can be iterated over."""
    one, other, default = tested.open("one"), tested.open("a b&c"), tested.open()
    publish(tested, 1, 2, 3, channel="one")
    publish(tested, "x", channel="a b&c")
    publish(tested, "y")
    assert [message.json for message in islice(one, 3)] == [1, 2, 3]
    assert other.get() == Message("x")
    assert default.get() == Message("y")


def test_a_stream_that_is_told_to_come_back(make_app: MakeApp, sse_harness: Make) -> None:
    """The end of a stream raises an error, and the reconnection time is known."""
    tested = sse_harness(make_app(SSE_MAX_CLIENTS=1, SSE_RETRY=1000))
    first, second = tested.open(), tested.open()
    assert first.retry == 1000
    assert second.retry is not None
    assert 1000 <= second.retry <= 2000
    with pytest.raises(EOFError, match="after 0 messages"):
        second.get()
    assert list(second) == []
    publish(tested, "x")
    # The time that begins the stream is not the message's.
    assert first.get() == Message("x")


def test_who_may_listen(make_app: MakeApp) -> None:
    """A logged-in client opens the stream; another client fails, with the reason."""
    guarded = ServerSentEventsBlueprint("guarded", __name__, url_prefix="/guarded")
    guarded.add_url_rule("", view_func=guarded.stream)

    @guarded.before_request
    def check() -> None:
        if session.get("user") != "alice" or request.headers.get("X-Key") != "1":
            abort(403)

    app = make_app(SECRET_KEY="secret")
    app.register_blueprint(guarded)
    with harness(app) as tested:
        client = app.test_client()
        with pytest.raises(AssertionError, match="/guarded answered 403 FORBIDDEN, text/html"):
            tested.open(client=client, url="/guarded")
        with client.session_transaction() as opened:
            opened["user"] = "alice"
        stream = tested.open("x", client=client, url="/guarded?y=1", headers={"X-Key": "1"})
        assert stream.response.request.args.to_dict() == {"y": "1", "channel": "x"}
        publish(tested, "secret", channel="x")
        assert stream.get() == Message("secret")


def _nested(app: Flask) -> None:
    parent = Blueprint("parent", __name__, url_prefix="/parent")
    parent.register_blueprint(sse, url_prefix="/stream", name="events")
    app.register_blueprint(parent)


def _at_a_subdomain(app: Flask) -> None:
    app.config.update(SERVER_NAME="example.org:8000", PREFERRED_URL_SCHEME="https")
    app.config["APPLICATION_ROOT"] = "/base"
    app.subdomain_matching = True
    app.register_blueprint(sse, subdomain="events", url_prefix="/stream")


def _at_a_host(app: Flask) -> None:
    events = ServerSentEventsBlueprint("events", __name__)
    events.add_url_rule("/stream", view_func=events.stream, host="events.example.org")
    app.url_map.host_matching = True
    app.register_blueprint(events)


def _beside_another_one(app: Flask) -> None:
    other = ServerSentEventsBlueprint("other", __name__, url_prefix="/other")
    other.add_url_rule("", view_func=other.stream)
    app.register_blueprint(other)
    app.register_blueprint(sse, url_prefix="/stream")


@pytest.mark.parametrize(
    ("register", "url"),
    [
        (_nested, "http://localhost/parent/stream"),
        (_at_a_subdomain, "https://events.example.org:8000/base/stream"),
        (_at_a_host, "http://events.example.org/stream"),
        (_beside_another_one, "http://localhost/stream"),
    ],
)
def test_where_the_stream_is(
    sse_harness: Make, register: Callable[[Flask], None], url: str
) -> None:
    """The URL is that of the registered blueprint, with its host."""
    app = Flask("tests")
    register(app)
    tested = sse_harness(app)
    stream = tested.open("x")
    assert stream.response.request.base_url == url
    publish(tested, "hello", channel="x")
    assert stream.get() == Message("hello")


def _at_a_subdomain_with_a_variable(app: Flask) -> None:
    app.register_blueprint(sse, subdomain="<tenant>", url_prefix="/<int:n>/stream")


def _at_a_host_with_a_variable(app: Flask) -> None:
    events = ServerSentEventsBlueprint("events", __name__)
    events.add_url_rule("/stream", view_func=events.stream, host="<tenant>.example.org")
    app.url_map.host_matching = True
    app.register_blueprint(events)


def _twice(app: Flask) -> None:
    app.register_blueprint(sse, url_prefix="/stream")
    app.register_blueprint(sse, url_prefix="/v2/stream", name="v2")


@pytest.mark.parametrize(
    ("register", "error"),
    [
        (lambda _: None, "the application has not registered flask_sse.sse; pass the URL of its "),
        (
            lambda app: app.register_blueprint(sse, url_prefix="/<tenant>/stream"),
            "sse.stream has the rule '/<tenant>/stream', which needs a value for tenant; pass",
        ),
        (
            _at_a_subdomain_with_a_variable,
            "'/<int:n>/stream' of the subdomain '<tenant>', which needs a value for n, tenant;",
        ),
        (
            _at_a_host_with_a_variable,
            "'/stream' of the host '<tenant>.example.org', which needs a value for tenant;",
        ),
        (_twice, "more than one stream: sse.stream at '/stream', v2.stream at '/v2/stream'; pass"),
    ],
)
def test_a_url_that_must_be_given(
    sse_harness: Make, register: Callable[[Flask], None], error: str
) -> None:
    """If there is no such URL, the error says why, and names the argument."""
    app = Flask("tests")
    register(app)
    tested = sse_harness(app)
    with pytest.raises(LookupError, match=re.escape(error)) as raised:
        tested.open()
    assert "as url=" in str(raised.value)


def test_a_url_with_a_variable(sse_harness: Make) -> None:
    """The URL of such a stream can be given, with its host."""
    app = Flask("tests")
    app.config["SERVER_NAME"] = "example.org"
    app.subdomain_matching = True
    app.register_blueprint(sse, subdomain="<tenant>", url_prefix="/stream")

    @app.url_value_preprocessor
    def take_tenant(_: str | None, values: dict[str, Any] | None) -> None:
        g.tenant = (values or {}).pop("tenant", None)

    tested = sse_harness(app)
    stream = tested.open(url="http://alice.example.org/stream")
    publish(tested, "hello")
    assert stream.get() == Message("hello")


@pytest.mark.parametrize("travel", [freeze_time, partial(time_machine.travel, tick=False)])
def test_where_time_stands_still(tested: Harness, travel: Callable[..., Any]) -> None:
    """If a test stops or moves the clock, messages arrive, and waiting still has a bound."""
    outer = tested.open()
    with travel("2030-01-01T12:00Z") as clock:
        inner = tested.open()
        publish(tested, "one")
        assert inner.get() == outer.get() == Message("one")
        with pytest.raises(TimeoutError):
            inner.get(timeout=0.02)
        for moment in (datetime(2031, 1, 1, tzinfo=UTC), datetime(1999, 1, 1, tzinfo=UTC)):
            clock.move_to(moment)
            publish(tested, moment)
            assert inner.get() == outer.get() == Message(moment)
    publish(tested, "two")
    assert inner.get() == outer.get() == Message("two")


@pytest.mark.disable_socket
def test_where_sockets_are_forbidden(make_app: MakeApp, sse_harness: Make) -> None:
    """The embedded Redis and the streams need no socket, not even a pair of them."""
    tested = sse_harness(make_app(SSE_HISTORY={"logged": 10}))
    plain, logged = tested.open(), tested.open("logged")
    publish(tested, "plain")
    publish(tested, "logged", channel="logged")
    assert plain.get() == Message("plain")
    assert [message.data for message in islice(logged, 2)][1] == "logged"
    with pytest.raises(UserWarning, match=r"tried to use socket\.socket"):
        socket.socket()


def test_to_go_on_after_a_message(make_app: MakeApp, sse_harness: Make) -> None:
    """With history, a stream begins with its position, and another stream continues from there."""
    tested = sse_harness(make_app(SSE_HISTORY=10))
    first = tested.open()
    assert first.channels == {"sse": False}
    assert first.get().type == "sse.open"
    publish(tested, 1, 2, 3)
    one, two = islice(first, 2)
    assert one.id != two.id == first.last_event_id
    second = tested.open(last_event_id=first.last_event_id)
    assert second.channels == {"sse": True}
    assert second.get().json == {"channel": "sse", "recovered": True}
    publish(tested, 4)
    assert [message.json for message in islice(second, 2)] == [3, 4]
    # Redis gives the ids, and the publisher does not know them.
    assert tested.published == [("sse", Message(number)) for number in (1, 2, 3, 4)]


class Counting(ServerSentEventsBlueprint):
    """Sends messages of its own before those of the channel."""

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Begin with a welcome."""
        yield Message("welcome")
        yield from super().messages(channel)


def test_overridden_messages(make_app: MakeApp) -> None:
    """Messages of an overridden generator arrive in the same way, and its thread ends too."""
    counting = Counting("counting", __name__, url_prefix="/counting")
    counting.add_url_rule("", view_func=counting.stream)
    app = make_app()
    app.register_blueprint(counting)
    with harness(app) as tested:
        stream = tested.open("x", url="/counting")
        assert stream.get() == Message("welcome")
        with pytest.raises(TimeoutError):
            stream.get(0.02)


def test_behind_a_middleware(
    make_app: MakeApp, sse_harness: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes may arrive in any pieces."""

    def in_bytes(wsgi_app: "WSGIApplication") -> "WSGIApplication":
        def app(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
            pieces = wsgi_app(environ, start)
            try:
                for piece in pieces:
                    yield from (bytes([byte]) for byte in piece)
            finally:
                close: Callable[[], None] = getattr(pieces, "close")  # noqa: B009
                close()

        return app

    app = make_app()
    monkeypatch.setattr(app, "wsgi_app", in_bytes(app.wsgi_app))
    tested = sse_harness(app)
    stream = tested.open()
    publish(tested, "ünïcode \U0001f980", "next")
    assert [stream.get(), stream.get()] == [Message("ünïcode \U0001f980"), Message("next")]


def test_a_stream_outlives_another_one(make_app: MakeApp) -> None:
    """When a stream ends, other open streams continue."""
    with harness(make_app()) as tested, open_stream(tested.app) as outer:
        with open_stream(tested.app) as inner:
            publish(tested, "both")
            assert inner.get() == outer.get() == Message("both")
        publish(tested, "one")
        assert outer.get() == Message("one")


def test_streams_of_a_real_redis(make_app: MakeApp, shared_redis: RedisServer) -> None:
    """A stream can be opened on the application's own Redis as well."""
    app = make_app(REDIS_URL=shared_redis.url)
    with open_stream(app, "real") as stream, record(app) as published:
        with app.app_context():
            assert sse.publish("x", channel="real") == 1
        assert stream.get() == Message("x")
        assert published == [("real", Message("x"))]


def test_in_memory_puts_back_what_was_there(make_app: MakeApp, shared_redis: RedisServer) -> None:
    """The block has separate settings and a new Redis; afterwards, everything is as before."""
    app = make_app(SSE_REDIS_URL=shared_redis.url, REDIS_URL="redis://unused")
    with app.app_context():
        real = sse.redis
        with in_memory(app):
            memory = sse.redis
            assert memory is not real
            memory.set("key", 1)
            app.config["SSE_KEEPALIVE"] = -1
            with pytest.raises(ValueError, match="SSE_KEEPALIVE"), in_memory(app):
                sse.publish("x")
            assert sse.redis is memory
        assert sse.redis is real
        assert app.config["SSE_REDIS_URL"] == shared_redis.url
        app.config["SSE_KEEPALIVE"] = 15
        with in_memory(app):
            assert sse.redis.get("key") is None
    bare = make_app()
    with in_memory(bare):
        assert bare.config["SSE_REDIS_URL"] == "memory://"
    assert "SSE_REDIS_URL" not in bare.config


def test_what_was_published(make_app: MakeApp) -> None:
    """Only the messages of this application are recorded, all of them, with their channels."""
    app, other = make_app(REDIS_URL="memory://"), make_app(REDIS_URL="memory://")
    with record(app) as published:
        assert published == []
        with app.app_context():
            sse.publish({"n": 1}, type="count", channel="numbers")
            sse.publish("x", channel=b"caf\xc3\xa9")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            with pytest.raises(TypeError):
                sse.publish(object())
        with other.app_context():
            sse.publish("of the other")
    with app.app_context():
        sse.publish("too late")
    assert published == [
        ("numbers", Message({"n": 1}, type="count")),
        ("café", Message("x")),
    ]
    assert published[0].message.data == {"n": 1}


def test_published_by_a_view(make_app: MakeApp, sse_harness: Make) -> None:
    """A view's messages are recorded and arrive, and so does its answer."""
    app = make_app()

    @app.post("/<user>")
    def log_in(user: str) -> Response:
        sse.publish({"user": user}, type="login")
        return Response(status=204)

    tested = sse_harness(app)
    stream = tested.open()
    assert app.test_client().post("/alice").status_code == 204
    assert tested.published == [("sse", Message({"user": "alice"}, type="login"))]
    assert stream.get().json["user"] == "alice"


def test_it_ends_with_an_error_too(make_app: MakeApp) -> None:
    """A block that fails leaves nothing behind either."""
    app = make_app()
    with pytest.raises(TimeoutError), harness(app) as tested:
        tested.open().get(0)
    assert "SSE_REDIS_URL" not in app.config


def test_an_application_with_a_cluster(
    make_app: MakeApp, sse_harness: Make, redis_cluster: RedisCluster
) -> None:
    """`memory://` takes the place of the cluster, which is used again afterwards."""
    app = make_app(SSE_REDIS_URL=redis_cluster.url, SSE_HISTORY=5)
    tested = sse_harness(app)
    stream = tested.open("users")
    publish(tested, {"n": 1}, channel="users")
    opening, message = stream.get(), stream.get()
    assert (opening.type, message.json) == ("sse.open", {"n": 1})
    assert tested.published == [("users", Message({"n": 1}))]
    resumed = tested.open("users", last_event_id=str(opening.id))
    assert [resumed.get().data for _ in range(2)][1] == '{"n": 1}'
    with app.app_context():
        assert sse.redis.ping()
    assert redis_cluster.subscribers(b"users") == 0


def test_streams_on_a_cluster(make_app: MakeApp, redis_cluster: RedisCluster) -> None:
    """Without `memory://`, an application's tests use the cluster itself."""
    app = make_app(REDIS_URL=redis_cluster.url)
    with record(app) as published, open_stream(app, "users") as stream:
        with app.app_context():
            assert sse.publish("x", channel="users") == 1
        assert stream.get().data == "x"
        assert published == [("users", Message("x"))]
        with in_memory(app), app.app_context():
            assert sse.publish("not there", channel="users") == 0
            assert sse.redis.ping()
        with app.app_context(), pytest.raises(TypeError, match="RedisCluster"):
            _ = sse.redis
        redis_cluster.publish(b"users", b'{"data": "y"}')
        assert stream.get().data == "y"


def test_a_cluster_that_does_not_answer(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that still waits for a node has ended when the block ends."""
    monkeypatch.setattr("flask_sse._streaming.event_stream.CONFIRM_WITHIN", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = make_app(REDIS_URL=f"redis+cluster://127.0.0.1:{silent.getsockname()[1]}")
        with open_stream(app) as stream:
            assert stream.retry is not None
            with pytest.raises(EOFError):
                stream.get()


def test_a_thread_that_is_being_started(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a stream waits for it, although it can't be joined yet."""
    thread = threading.Thread(name="flask-sse-topology")
    starter = threading.Timer(0.2, thread.start)
    with open_stream(make_app(REDIS_URL="memory://"), "x") as stream:
        assert stream.retry is None
        monkeypatch.setattr(threading, "enumerate", lambda: [thread])
        starter.start()
    assert thread.ident is not None
    assert not thread.is_alive()
    starter.join()
