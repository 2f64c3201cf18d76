"""The contexts of a request whose stream sends what an overridden `messages` yields."""

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from contextvars import copy_context
from typing import Any

import flask_login
import pytest
from a2wsgi import WSGIMiddleware
from flask import Flask, Response, g, request, session
from flask.testing import FlaskClient
from werkzeug.wrappers import Response as BaseResponse

from flask_sse import Message, ServerSentEventsBlueprint
from flask_sse.testing import harness, open_stream
from tests.support import coroutines
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wsgi import pieces_of


class Greeting(ServerSentEventsBlueprint):
    """A blueprint that greets the user who is logged in."""

    steps: list[str]

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Yield a greeting, and then the messages."""
        user: Any = flask_login.current_user
        yield Message([g.user, user.get_id(), session["theme"], request.args["user"]])
        try:
            for message in super().messages(channel):
                g.number += 1
                yield Message([message.data, g.number])
        finally:
            self.steps.append(f"generator of {g.user}")


class User:
    """A user as Flask-Login needs it, whose id is the name."""

    is_authenticated = is_active = True
    is_anonymous = False

    def __init__(self, name: str) -> None:
        self.name = name

    def get_id(self) -> str:
        """Return the id."""
        return self.name


class Site:
    """An application with that blueprint, and what happens in it."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.errors: list[str] = []
        self.app = Flask("tests")
        self.app.config.update(SSE_REDIS_URL="memory://", SSE_KEEPALIVE=0.1)
        self.app.secret_key = "of the tests"
        flask_login.LoginManager(self.app).user_loader(User)
        self.sse = Greeting("sse", __name__)
        self.sse.steps = self.steps
        self.sse.add_url_rule("", endpoint="stream", view_func=self.sse.stream)
        self.sse.before_request(self._note_user)
        self.sse.teardown_request(self._note_request)
        self.app.teardown_appcontext(self._note_application)
        self.app.register_blueprint(self.sse, url_prefix="/stream")
        self.app.add_url_rule("/login/<name>", view_func=self._log_in)

    def client(self, name: str) -> FlaskClient:
        """Return a client that has logged in."""
        client = self.app.test_client()
        client.get(f"/login/{name}")
        return client

    def _log_in(self, name: str) -> str:
        flask_login.login_user(User(name))
        session["theme"] = "dark"
        return "logged in"

    def _note_user(self) -> None:
        g.user = request.args["user"]
        g.number = 0

    def _note_request(self, error: BaseException | None) -> None:
        self.steps.append(f"request of {g.user} and {request.args['user']}, number {g.number}")
        self.errors.append(type(error).__name__)

    def _note_application(self, _: BaseException | None) -> None:
        if "user" in g:
            self.steps.append(f"application of {g.user}, number {g.number}")


@pytest.fixture
def site() -> Site:
    """Return the application."""
    return Site()


def steps_of(name: str, number: int = 0) -> list[str]:
    """Return what happens at the end of a user's stream, in order."""
    return [
        f"generator of {name}",
        f"request of {name} and {name}, number {number}",
        f"application of {name}, number {number}",
    ]


GREETING = b'data:["alice", "alice", "dark", "alice"]\n\n'


def read_greeting(response: BaseResponse) -> Iterator[bytes]:
    """Read the first pieces of a stream; return the others."""
    pieces = iter(pieces_of(response))
    assert next(pieces) == b":\n"
    assert next(pieces) == GREETING
    return pieces


def publish(site: Site, data: str) -> None:
    """Publish, once there is a listener."""

    def is_received() -> bool:
        with site.app.app_context():
            return site.sse.publish(data) == 1

    wait_until(is_received, "there is a listener")


def test_they_are_those_of_the_view(site: Site) -> None:
    """`g`, `request`, `session` and `current_user`; teardown functions run once, at the end."""
    response = site.client("alice").get("/stream?user=alice")
    pieces = read_greeting(response)
    publish(site, "x")
    assert next(piece for piece in pieces if piece != b":\n") == b'data:["x", 1]\n\n'
    assert site.steps == []
    response.close()
    response.close()
    assert site.steps == steps_of("alice", 1)
    assert site.errors == ["GeneratorExit"], "as if the server had closed the generator"
    assert not g, "nothing is left in this thread"


@pytest.mark.parametrize("closes_first", [False, True])
def test_a_client_that_preserves_contexts(site: Site, closes_first: bool) -> None:
    """With Flask's client as a context manager, the test sees the same `g` as the stream."""
    with site.client("alice") as client:
        response = client.get("/stream?user=alice")
        read_greeting(response)
        assert g.user == "alice"
        if closes_first:
            response.close()
        assert site.steps == steps_of("alice")[:closes_first]
    response.close()
    assert site.steps == steps_of("alice")
    assert not g


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_stream_that_is_never_read(site: Site, method: str) -> None:
    """The generator does not begin, and the teardown functions run once."""
    with site.app.test_request_context("/stream?user=alice", method=method):
        g.user, g.number = "alice", 0
        response = site.app.make_response(site.sse.stream())
    assert site.steps == []
    response.close()
    assert site.steps == steps_of("alice")[1:]
    assert site.errors == ["NoneType"]
    assert not g


def test_a_response_that_is_replaced(site: Site) -> None:
    """An application may drop the stream's response: its contexts end with the request."""

    @site.app.after_request
    def replace(response: Response) -> Response:
        return Response("replaced") if request.path == "/stream" else response

    response = site.client("alice").get("/stream?user=alice")
    assert response.text == "replaced"
    assert site.steps == steps_of("alice")[1:]
    assert not g


def test_a_generator_that_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is the end of the request, without an error."""

    def messages(self: Greeting, channel: str = "sse") -> Generator[Message, None, None]:
        yield Message(f"{g.user} {channel}")
        self.steps.append("generator of alice")

    monkeypatch.setattr(Greeting, "messages", messages)
    response = site.client("alice").get("/stream?user=alice")
    assert b"".join(pieces_of(response)).endswith(b"data:alice sse\n\n")
    assert site.steps == steps_of("alice")
    assert site.errors == ["NoneType"]
    response.close()


def test_a_generator_that_fails_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server gets the error before anything was sent, and answers with 500."""

    def messages(self: Greeting, channel: str = "sse") -> Generator[Message, None, None]:
        self.steps.append(f"generator of {g.user}")
        yield Message(g.missing)

    monkeypatch.setattr(Greeting, "messages", messages)
    with pytest.raises(AttributeError, match="missing"):
        site.client("alice").get("/stream?user=alice")
    assert site.steps == steps_of("alice")
    assert site.errors == ["AttributeError"]
    assert "messages()" not in caplog.text, "the server logs it"
    assert not g


def test_a_generator_that_does_not_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a stream waits a bounded time for a generator that waits for something else."""
    monkeypatch.setattr("flask_sse._streaming.overridden._CLOSE_WITHIN", 0.1)
    may_end = threading.Event()

    def messages(self: Greeting, channel: str = "sse") -> Generator[Message, None, None]:
        yield Message(channel)
        may_end.wait(60)
        self.steps.append(f"generator of {g.user}")

    monkeypatch.setattr(Greeting, "messages", messages)
    response = site.client("alice").get("/stream?user=alice")
    pieces = pieces_of(response)
    assert [next(pieces), next(pieces)] == [b":\n", b"data:sse\n\n"]
    response.close()
    assert site.steps == steps_of("alice")[1:]
    may_end.set()
    wait_until(lambda: len(site.steps) == 3, "the generator has ended")


def in_thread(function: Callable[[], None]) -> None:
    """Call a function in another thread."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def in_context(function: Callable[[], None]) -> None:
    """Call a function in a copy of the context, as asynchronous servers do."""
    copy_context().run(function)


@pytest.mark.parametrize("call", [in_thread, in_context])
def test_a_server_that_closes_it_elsewhere(
    site: Site, call: Callable[[Callable[[], None]], None]
) -> None:
    """The teardown functions run once, in the right contexts."""

    def serve() -> None:
        response = site.client("alice").get("/stream?user=alice")
        read_greeting(response)
        call(response.close)
        assert site.steps == steps_of("alice")
        response.close()

    # Flask itself can't clean up in a thread in which it has not worked.
    copy_context().run(serve)
    assert site.steps == steps_of("alice")


@pytest.mark.parametrize("first", [0, 1])
def test_two_streams_in_one_thread(site: Site, first: int) -> None:
    """They may end in any order, and nothing is left in the thread."""
    responses = [site.client("alice").get("/stream?user=alice") for _ in range(2)]
    for response in responses:
        read_greeting(response)
    responses.pop(first).close()
    assert site.steps.count("generator of alice") == 1
    responses.pop().close()
    assert site.steps.count("generator of alice") == 2
    assert site.steps.count("request of alice and alice, number 0") == 2
    assert not g
    assert not request


def test_in_the_harness(site: Site) -> None:
    """Each stream has contexts of its own, and the test has none."""
    with harness(site.app) as tested:
        alice, bob = (
            tested.open(url=f"/stream?user={user}", client=site.client(user), timeout=PATIENCE)
            for user in ("alice", "bob")
        )
        assert alice.get().json == ["alice", "alice", "dark", "alice"]
        assert bob.get().json == ["bob", "bob", "dark", "bob"]
        assert not g
        publish(site, "x")
        assert [alice.get().json, bob.get().json] == [["x", 1], ["x", 1]]
    assert site.steps == [*steps_of("bob", 1), *steps_of("alice", 1)]


def test_in_the_harness_with_preserved_contexts(site: Site) -> None:
    """A client that is a context manager preserves them, as Flask's own does."""
    with site.client("alice") as client, open_stream(client, url="/stream?user=alice") as stream:
        assert stream.get().json == ["alice", "alice", "dark", "alice"]
        assert g.user == "alice"
    assert site.steps == steps_of("alice")
    assert not g


def test_an_asynchronous_view(site: Site) -> None:
    """Its contexts end with the view, because nobody else could pop them; `g` is the same."""

    async def view() -> Response:
        g.user, g.number = "alice", 0
        session["theme"] = "dark"
        flask_login.login_user(User("alice"))
        return site.sse.stream()

    with site.app.test_request_context("/stream?user=alice"):
        response = coroutines.run(view())
    assert site.steps == steps_of("alice")[1:]
    read_greeting(response)
    response.close()
    assert site.steps == [*steps_of("alice")[1:], *steps_of("alice")[:1]]


def test_behind_a2wsgi(site: Site, shared_redis: RedisServer) -> None:
    """Under an ASGI server, the stream ends when its client has gone."""
    site.app.config["SSE_REDIS_URL"] = shared_redis.url
    cookie = site.client("alice").get_cookie("session")
    assert cookie is not None
    scope = {
        **{"type": "http", "http_version": "1.1", "method": "GET", "path": "/stream"},
        **{"query_string": b"user=alice", "server": ("localhost", 80), "scheme": "http"},
        "headers": [(b"cookie", f"session={cookie.value}".encode())],
    }
    requests = [{"type": "http.request"}]

    async def serve() -> None:
        has_gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            if requests:
                return requests.pop()
            await has_gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if GREETING in message.get("body", b""):
                has_gone.set()

        # a2wsgi has types of its own for what typeshed has.
        wsgi_app: Any = site.app
        asgi_app: Any = WSGIMiddleware(wsgi_app)
        await asyncio.wait_for(asgi_app(scope, receive, send), PATIENCE)

    coroutines.run(serve())
    assert site.steps == steps_of("alice")
