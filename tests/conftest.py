"""Fixtures for all tests."""

import gc
import itertools
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings

from flask_sse import sse
from tests.support.redis_cluster import RedisCluster, running_cluster
from tests.support.redis_programs import NEWER_SERVERS, program
from tests.support.redis_server import RedisServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

_names = itertools.count()
_tests = itertools.count(1)

# Whether a test passes must depend neither on chance nor on the speed of this machine.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("repeatable"), derandomize=False)
settings.load_profile("repeatable")


_THOROUGH_EVERY: Final = 50
"""The number of tests between two slow collections that look at all objects."""
_CLUSTER: Final = "cluster"
"""The part of a test's id that sends it to a process that has a Redis Cluster."""
_ROUGH: Final = ("tests/faults/", "tests/servers/")
"""Where half of the time goes that tests with a Redis Cluster take."""
_FIRST: Final = tuple(
    f"tests/{name}"
    for name in (
        "behavior/test_history_model",
        "behavior/test_channels_model",
        "servers/test_handover",
        "third_party/",
        "docs/",
        "servers/",
        "faults/",
        "browsers/",
        "static/",
        "soak/",
    )
)
"""The slowest tests, by file or folder."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(
    config: pytest.Config, log: "Producer"
) -> "LoadScopeScheduling | None":
    """Run the tests with a cluster in two processes, so that its six servers start only twice.

    These tests wait most of the time, so in one process they would take longer than all others.
    """
    if config.getvalue("dist") != "loadscope":
        return None
    # Not every environment has it: tests also run without.
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415

    # It has no types for mypy.
    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if _CLUSTER in nodeid:
                return f"{_CLUSTER} {nodeid.startswith(_ROUGH)}"
            scope: str = super()._split_scope(nodeid)
            return scope

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Find the tests without collecting garbage, of which there is hardly any.

    Each process finds all tests, and would spend a sixth of that time on it.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest tests first, so that all processes finish at about the same time."""

    def place(item: pytest.Item) -> int:
        found = (number for number, start in enumerate(_FIRST) if item.nodeid.startswith(start))
        return next(found, len(_FIRST))

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def collect_only_what_is_new() -> Iterator[None]:
    """Make the garbage collection after each test skip older objects.

    Otherwise it would take more than half of the CPU time of the tests.
    """
    gc.collect()
    gc.freeze()
    yield
    # Fixtures that several tests share must have closed their sockets, too.
    gc.unfreeze()
    gc.collect()


@pytest.fixture(autouse=True)
def close_everything() -> Iterator[None]:
    """Make the test fail that has left a socket open, and not the one in which it is found."""
    # The fixtures of the previous test can be collected only now. The objects that remain are
    # skipped from here on, except by the slow collections.
    if next(_tests) % _THOROUGH_EVERY == 0:
        gc.unfreeze()
    _collect_garbage()
    gc.freeze()
    yield
    _collect_garbage()


def _collect_garbage() -> None:
    # The youngest come first, since each collection puts what it leaves after what is older. A
    # full one would put them before, and close a socket before the connection that has opened it.
    for generation in range(3):
        gc.collect(generation)


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


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Return a Redis Cluster that nobody repairs; tests ask for `redis_cluster`."""
    with running_cluster(RedisCluster(tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_divisible_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Return the same with proxies; tests ask for `divisible_cluster`."""
    folder = tmp_path_factory.mktemp("cluster")
    with running_cluster(RedisCluster(folder, proxied=True)) as cluster:
        yield cluster


@pytest.fixture(scope="session", params=NEWER_SERVERS)
def shared_newer_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisCluster]:
    """Return a Redis Cluster of each newer server; tests ask for `newer_cluster`."""
    folder = tmp_path_factory.mktemp("cluster")
    with running_cluster(RedisCluster(folder, program=program(request.param))) as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(
    request: pytest.FixtureRequest, shared_cluster: RedisCluster
) -> Iterator[RedisCluster]:
    """Return a Redis Cluster that is whole, and with which the test may do anything.

    The id of each test with a cluster contains the word "cluster", so that they run in two
    processes, and share the servers there.
    """
    _check_name(request)
    yield shared_cluster
    shared_cluster.repair()


@pytest.fixture
def divisible_cluster(
    request: pytest.FixtureRequest, shared_divisible_cluster: RedisCluster
) -> Iterator[RedisCluster]:
    """Return another Redis Cluster, from which nodes can be cut off."""
    _check_name(request)
    yield shared_divisible_cluster
    shared_divisible_cluster.repair()


@pytest.fixture
def newer_cluster(
    request: pytest.FixtureRequest, shared_newer_cluster: RedisCluster
) -> Iterator[RedisCluster]:
    """Return a Redis Cluster of each newer server, for tests that take long."""
    _check_name(request)
    yield shared_newer_cluster
    shared_newer_cluster.repair()


def _check_name(request: pytest.FixtureRequest) -> None:
    node_id: str = request.node.nodeid
    assert _CLUSTER in node_id, "name the test, its file or its parameter after the cluster"


@pytest.fixture(params=["redis", "memory"])
def redis_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a real Redis, and then that of the embedded Redis."""
    if request.param == "memory":
        return "memory://"
    server: RedisServer = request.getfixturevalue("shared_redis")
    return server.url


@pytest.fixture(params=["redis", "memory", pytest.param("cluster", marks=pytest.mark.long)])
def any_redis_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a real Redis, that of the embedded one, and that of a Redis Cluster."""
    if request.param == "memory":
        return "memory://"
    server: RedisServer | RedisCluster = request.getfixturevalue(f"shared_{request.param}")
    return server.url


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Return a real, headless Chromium."""
    # Only the tests that ask for it need Playwright.
    from tests.support.chromium import chromium  # noqa: PLC0415

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
