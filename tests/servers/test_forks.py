"""Children that a view forks: neither their life nor their end matters to the streams."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path

import psutil
import pytest
from flask import Flask

from flask_sse import sse
from tests.support import servers
from tests.support.client import StreamClient
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

APP = "tests.apps.forking:app"


def has_ended(process: psutil.Process) -> bool:
    """Whether a process has ended; its parent may not have noticed it."""
    with suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.parametrize(
    "worker", [pytest.param("sync", marks=pytest.mark.long), "gthread", "gevent"]
)
@pytest.mark.parametrize("kind", ["redis", pytest.param("cluster", marks=pytest.mark.long)])
def test_children(
    worker: str,
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_app: Callable[..., Flask],
) -> None:
    """Children end in many ways, and the streams continue; the streams end before a child."""
    server_of_events: RedisServer | RedisCluster = request.getfixturevalue(f"shared_{kind}")
    settings = {"REDIS_URL": server_of_events.url, "SSE_KEEPALIVE": 0.5, "SSE_HISTORY": 10}
    name = f"forks-{worker}"

    def publish(data: str) -> None:
        # Not in the server: under gevent, a child may accept the request before it ends.
        with make_app(**settings).app_context():
            assert sse.publish(data, channel=name) == 1

    with (
        servers.gunicorn(tmp_path, *servers.WORKERS[worker], app=APP, settings=settings) as site,
        StreamClient(site.port, name).open() as client,
        StreamClient(site.port, name, version="1.0").open() as other,
    ):
        server = site.worker()
        for act, way in product(("return", "exit", "fail"), ("multiprocessing", "_exit")):
            child = psutil.Process(int(site.get(f"/fork?act={act}&with={way}")))
            wait_until(partial(has_ended, child), "the child has ended")
            publish(f"{act} {way}")
        child = psutil.Process(int(site.get("/fork?act=live&with=multiprocessing")))
        try:
            publish("last")
            for stream in (client, other):
                opening, *events = stream.wait_events(8)
                assert opening.type == "sse.open"
                assert [event.data for event in events] == [
                    *("return multiprocessing", "return _exit", "exit multiprocessing"),
                    *("exit _exit", "fail multiprocessing", "fail _exit", "last"),
                ]
                stream.wait_comments(stream.parser.comments + 2)
            server.kill()
            for stream in (client, other):
                stream.wait_end()
            assert not has_ended(child)
            if isinstance(server_of_events, RedisCluster):
                server_of_events.wait_subscribers(0, name.encode())
            else:
                server_of_events.wait_listeners(0, name)
            # A new worker might miss the signal to stop.
            assert site.get("/") == "hello"
        finally:
            child.kill()
