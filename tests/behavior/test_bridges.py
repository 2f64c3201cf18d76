"""WSGI applications on ASGI servers: each of the real bridges, in an event loop of the test's."""

import asyncio
import warnings
from collections.abc import Callable, Coroutine, Generator, Iterator
from functools import partial
from typing import Any, Final

import a2wsgi
import anyio.to_thread
import pytest
from asgiref.wsgi import WsgiToAsgi
from flask import Flask
from hypercorn.app_wrappers import WSGIWrapper
from uvicorn.middleware import wsgi as uvicorns

from flask_sse import Message, ServerSentEventsBlueprint, sse
from tests.support.asgi import Application, MakeVisit, serving

with warnings.catch_warnings(action="ignore"):
    # Starlette itself recommends a2wsgi.
    from starlette.middleware.wsgi import WSGIMiddleware as StarlettesMiddleware

Bridge = Callable[[Any], Any]


def behind_uvicorns(app: Any) -> Application:
    """Return the application behind the bridge that Uvicorn uses without a2wsgi."""
    with pytest.warns(DeprecationWarning, match="a2wsgi"):
        return uvicorns._WSGIMiddleware(app)  # pyright: ignore[reportPrivateUsage]


def behind_hypercorns(app: Flask) -> Application:
    """Return the application as Hypercorn calls a WSGI application."""
    wrapper = WSGIWrapper(app, 1 << 20)

    async def call(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()

        def call_soon(func: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
            return asyncio.run_coroutine_threadsafe(func(*args), loop).result()

        await wrapper(scope, receive, send, partial(loop.run_in_executor, None), call_soon)

    return call


BRIDGES: Final[dict[str, Bridge]] = {
    "a2wsgi": a2wsgi.WSGIMiddleware,
    "asgiref": WsgiToAsgi,
    "hypercorn": behind_hypercorns,
    "starlette": StarlettesMiddleware,
    "uvicorn": behind_uvicorns,
}
OTHERS: Final = ("asgiref", "starlette", "uvicorn")
"""The bridges that Flask-SSE warns of."""


class Overriding(ServerSentEventsBlueprint):
    """A blueprint that overrides `messages`, so that a stream ends after a last one."""

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Yield the messages up to the last."""
        for message in super().messages(channel):
            yield message
            if message.data == "last":
                return


@pytest.fixture
def visit() -> Iterator[MakeVisit]:
    """Return a function that sends requests to ASGI applications."""
    with serving() as visit:
        yield visit


def make_app(blueprint: ServerSentEventsBlueprint = sse, **config: object) -> Flask:
    """Return an application whose streams are silent."""
    app = Flask("tests")
    app.testing = True
    app.config.update({"REDIS_URL": "memory://", "SSE_KEEPALIVE": None, **config})
    app.register_blueprint(blueprint, url_prefix="/stream")
    return app


def overriding() -> ServerSentEventsBlueprint:
    """Return a new blueprint that overrides `messages`."""
    blueprint = Overriding("sse", __name__)
    blueprint.add_url_rule("", endpoint="stream", view_func=blueprint.stream)
    return blueprint


@pytest.mark.parametrize("name", BRIDGES)
@pytest.mark.parametrize("make", [lambda: sse, overriding], ids=["stream", "overridden"])
def test_a_client_that_leaves_is_released(
    name: str, make: Callable[[], ServerSentEventsBlueprint], visit: MakeVisit
) -> None:
    """Its thread is free again, even if nothing is ever sent to the client."""
    app = make_app(make())
    bridge = BRIDGES[name](app)
    for _ in range(3):
        client = visit(bridge)
        assert client.wait_body() == b":\n"
        client.leave()
        assert client.wait_end() == b":\n"


@pytest.mark.parametrize("name", BRIDGES)
def test_a_warning_names_a_better_bridge(
    name: str, visit: MakeVisit, caplog: pytest.LogCaptureFixture
) -> None:
    """The first stream warns of a bridge that can't serve streams well, and only the first."""
    bridge = BRIDGES[name](make_app())
    for _ in range(2):
        client = visit(bridge)
        client.wait_body()
        client.leave()
        client.wait_end()
    assert len(caplog.records) == (1 if name in OTHERS else 0)
    assert all("a2wsgi's WSGIMiddleware" in message for message in caplog.messages)
    assert all(name in message.lower() for message in caplog.messages)


class Opaque:
    """An awaitable whose coroutine nobody can see, as compiled code makes them."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Any:
        """Return itself as the iterator."""
        return self

    def __iter__(self) -> "Opaque":
        """Return itself."""
        return self

    def __next__(self) -> object:
        """Let the coroutine continue."""
        return self._coroutine.send(None)


def test_a_bridge_that_can_not_be_watched(
    visit: MakeVisit, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream works there, too, but the first one warns that it stays when its client leaves."""
    blueprint = overriding()
    app = make_app(blueprint)
    bridge = StarlettesMiddleware(app)

    async def hidden(scope: Any, receive: Any, send: Any) -> None:
        await Opaque(bridge(scope, receive, send))

    for _ in range(2):
        client = visit(hidden)
        assert client.wait_body() == b":\n"
        client.leave()
        with app.app_context():
            blueprint.publish("last")
        assert b"last" in client.wait_end()
    assert caplog.messages == [
        "Starlette's WSGIMiddleware does not tell when a client has left, whose stream then "
        "occupies a thread; use a2wsgi's WSGIMiddleware"
    ]


def with_two_threads(app: Flask) -> Application:
    """Return the application behind Starlette's bridge, with two of anyio's threads."""
    bridge = StarlettesMiddleware(app)

    async def call(scope: Any, receive: Any, send: Any) -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 2
        await bridge(scope, receive, send)

    return call


@pytest.mark.parametrize(
    ("put_behind", "remedy"),
    [
        (
            partial(a2wsgi.WSGIMiddleware, workers=2),
            "pass a2wsgi's WSGIMiddleware a larger number of workers, or use gunicorn",
        ),
        (with_two_threads, "give the server more threads, or use gunicorn"),
    ],
    ids=["a2wsgi", "starlette"],
)
def test_streams_in_all_threads(
    put_behind: Bridge, remedy: str, visit: MakeVisit, caplog: pytest.LogCaptureFixture
) -> None:
    """When open streams occupy all threads, one warning says how to get more."""
    bridge = put_behind(make_app())
    gone = visit(bridge)
    gone.wait_body()
    gone.leave()
    gone.wait_end()
    visit(bridge).wait_body()
    assert not any("threads" in message for message in caplog.messages)
    caplog.clear()
    for _ in range(2):
        client = visit(bridge)
        client.wait_body()
        assert caplog.messages == [
            "open event streams occupy all threads that this process has for requests (2), so "
            f"other requests wait until a stream ends; {remedy}"
        ]
        client.leave()
        client.wait_end()
