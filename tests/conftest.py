"""Fixtures for all tests."""

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Browser

from flask_sse import sse
from tests.support.chromium import chromium
from tests.support.redis_server import RedisServer

_names = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Make Ctrl-C end the processes that tests start, even if the tests are a background job."""
    # A shell makes background jobs and their child processes ignore it.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a shared redis-server, which tests must not stop."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a redis-server that the test may stop."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["redis", "memory"])
def redis_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a real Redis, and then that of the embedded Redis."""
    if request.param == "memory":
        return "memory://"
    server: RedisServer = request.getfixturevalue("shared_redis")
    return server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a real, headless Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def channel() -> str:
    """Return the name of a channel that no other test uses."""
    return f"channel-{next(_names)}"


@pytest.fixture
def make_app() -> Callable[..., Flask]:
    """Return a function that makes an application with the given settings."""

    def make(**config: object) -> Flask:
        app = Flask("tests")
        app.config.update(config)
        app.register_blueprint(sse, url_prefix="/stream")
        return app

    return make


@pytest.fixture
def app(make_app: Callable[..., Flask], redis_url: str) -> Flask:
    """Return an application on each kind of Redis."""
    return make_app(REDIS_URL=redis_url)
