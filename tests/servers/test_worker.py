"""A server that has been told to stop is found, also if the application handles the signal."""

import json
import signal
import sys
from pathlib import Path

import pytest
import uvicorn

from flask_sse._streaming import worker as _worker
from tests.support import servers
from tests.support.client import StreamClient
from tests.support.processes import free_port, running, wait_gone
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

APP = "tests.apps.wrapping:app"


@pytest.mark.parametrize(
    "worker",
    [
        "gevent",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("gthread", "gevent_pywsgi")),
    ],
)
def test_a_wrapped_handler_under_gunicorn(
    worker: str, shared_redis: RedisServer, tmp_path: Path
) -> None:
    """Streams that the server reads end properly, long before its graceful timeout."""
    options = ("--worker-class", worker, "--threads", "5")
    settings = {"REDIS_URL": shared_redis.url, "SSE_DIRECT": False}
    with servers.gunicorn(tmp_path, *options, app=APP, settings=settings) as site:
        old = site.worker()
        site.get("/listen?channel=wrapped")
        with StreamClient(site.port).open() as client, StreamClient(site.port).open() as other:
            site.process.send(signal.SIGTERM)
            for stream in (client, other):
                assert stream.wait_end().complete
            wait_gone(old)
        assert "told to stop" in site.log()


def test_a_wrapped_handler_under_uvicorn(shared_redis: RedisServer, tmp_path: Path) -> None:
    """The same is true for uvicorn, which waits for the streams without a limit."""
    port = free_port()
    command = [*(sys.executable, "-m", "uvicorn", "--port", str(port)), f"{APP[:-3]}asgi_app"]
    env = {"FLASK_REDIS_URL": json.dumps(shared_redis.url)}
    log = tmp_path / "uvicorn.log"
    with (
        running(command, port, log, env=env, cwd=servers.ROOT) as process,
        StreamClient(port).open() as client,
    ):
        process.send(signal.SIGTERM)
        assert client.wait_end().complete
        process.wait()
        assert "told to stop" in log.read_text()


def test_a_second_server() -> None:
    """A process may run a server after another one has stopped, and its streams continue."""
    first, second = (uvicorn.Server(uvicorn.Config(APP)) for _ in range(2))
    assert not _worker.is_stopping()
    with first.capture_signals():
        assert not _worker.is_stopping()
        first.should_exit = True
        wait_until(_worker.is_stopping, "it is found")
    assert _worker.is_stopping(), "it still ends its streams"
    with second.capture_signals():
        assert not _worker.is_stopping()
        second.should_exit = True
        assert _worker.is_stopping()
    del first, second
    wait_until(lambda: not _worker.is_stopping(), "both have gone")
