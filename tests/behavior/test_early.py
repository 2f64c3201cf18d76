"""A stream whose body the application reads before it is sent: an error at once."""

import pickle
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from flask import Flask, Response

from flask_sse import Message, ServerSentEventsBlueprint
from tests.support import servers
from tests.support.client import StreamClient
from tests.support.redis_server import RedisServer
from tests.support.wsgi import open_stream, pieces_of


class Overriding(ServerSentEventsBlueprint):
    """A blueprint with messages of its own, which end."""

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Yield a message."""
        yield Message(f"on {channel}")


WAYS: dict[str, Callable[[Response], object]] = {
    "get_data": Response.get_data,
    "data": lambda response: response.data,
    "make_sequence": Response.make_sequence,
    "freeze": Response.freeze,
    "add_etag": Response.add_etag,
    "iter_encoded": lambda response: b"".join(response.iter_encoded()),
}


@pytest.fixture(params=[ServerSentEventsBlueprint, Overriding])
def app(request: pytest.FixtureRequest) -> Flask:
    """Return an application with a stream of each kind."""
    blueprint: ServerSentEventsBlueprint = request.param("sse", __name__)
    blueprint.add_url_rule("", endpoint="stream", view_func=blueprint.stream)
    app = Flask("tests")
    app.config["REDIS_URL"] = "memory://"
    app.register_blueprint(blueprint, url_prefix="/stream")
    return app


def prepare(app: Flask, act: Callable[[Response], object]) -> None:
    """Make an application do something with each response, as extensions do it."""

    @app.after_request
    def prepare(response: Response) -> Response:
        response.direct_passthrough = False
        act(response)
        return response


@pytest.mark.parametrize("way", WAYS)
def test_reading(app: Flask, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever reads the body, the answer is 500, and the log says what to do."""
    prepare(app, WAYS[way])
    response = app.test_client().get("/stream")
    assert response.status_code == 500
    assert "skip responses whose mimetype is text/event-stream" in caplog.text


def test_preparing(app: Flask) -> None:
    """Whatever does not read it may do what it wants; the server reads the body."""
    prepare(app, lambda response: response.set_etag("of a stream"))
    with open_stream(app) as stream:
        assert stream.first == b":\n"


def test_reading_in_another_request(app: Flask) -> None:
    """A view may read the stream of another request, as a proxy or a test does."""

    @app.get("/first")
    def read_first() -> bytes:
        with app.test_client().get("/stream") as response:
            return next(pieces_of(response))

    assert app.test_client().get("/first").data == b":\n"


def test_storing(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """A cache that pickles responses is told to leave the stream out."""
    prepare(app, pickle.dumps)
    assert app.test_client().get("/stream").status_code == 500
    assert "exclude the view of the stream from caching" in caplog.text


def test_under_gunicorn(shared_redis: RedisServer, tmp_path: Path) -> None:
    """Its only worker goes on serving."""
    app = "tests.apps.reading:app"
    settings = {"REDIS_URL": shared_redis.url}
    with servers.gunicorn(tmp_path, *servers.WORKERS["sync"], app=app, settings=settings) as site:
        with StreamClient(site.port).read_headers(30) as client:
            assert client.status == 500
        assert site.get("/") == "hello"
