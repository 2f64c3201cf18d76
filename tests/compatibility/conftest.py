"""Both versions of Flask-SSE, each in a server and with a Redis of its own."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from tests.compatibility.browser import END, Browser, Received
from tests.support.processes import LOOPBACK, free_port, running
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import wait_until

# Where there is no folder `flask_sse`, which would go before what is installed.
FOLDER: Final = Path(__file__).parent
OLD: Final = ROOT / ".venv-compatibility" / "bin" / "python"
NEW: Final = Path(sys.executable)

Answer = TypeVar("Answer")


class Run:
    """An application with one version of Flask-SSE.

    :param python: The interpreter of the environment with that version.
    """

    def __init__(self, app: str, python: Path, port: int, redis: RedisServer) -> None:
        self.redis = redis
        self.python = python
        self._app = app
        self._port = port
        self._cookie = ""

    def get(self, path: str) -> str:
        """Return the body of an answer, and keep its cookie."""
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=10)
        connection.request("GET", path, headers={"Cookie": self._cookie} if self._cookie else {})
        response = connection.getresponse()
        cookie = response.getheader("Set-Cookie")
        self._cookie = cookie.partition(";")[0] if cookie else self._cookie
        text = response.read().decode()
        connection.close()
        assert response.status in (200, 302), f"{response.status}: {text}"
        return text

    def status(self, path: str) -> int:
        """Return the status of an answer that has a body of some length."""
        with Browser(self._port, path, cookie=self._cookie) as browser:
            return browser.response.status

    @contextmanager
    def listen(
        self, path: str, channel: str = "sse", headers: Mapping[str, str] | None = None
    ) -> Iterator[Browser]:
        """Connect a browser, and wait for its subscription to *channel*."""
        before = self._subscriptions(channel)
        with Browser(self._port, path, headers, self._cookie) as browser:
            # This version has one subscription for all that listen to a channel.
            if before and self.python == NEW:
                browser.response.read1()
            else:
                self.wait_subscribed(channel, before + 1)
            yield browser
        # 1.0 finds out with the next event that nobody listens any more.
        wait_until(lambda: self._is_released(channel, before), "released")

    def wait_subscribed(self, channel: str, number: int = 1) -> None:
        """Wait for as many subscriptions to a channel."""
        wait_until(lambda: self._subscriptions(channel) >= number, f"subscribed to {channel}")

    def mark(self, channel: str = "sse") -> None:
        """Publish the event up to which a browser reads."""
        self.redis.admin.publish(channel, json.dumps({"data": END, "type": END}))

    def receive(self, path: str, *publish: str, channel: str = "sse") -> list[Received]:
        """Return what a browser receives while some pages are asked for."""
        with self.listen(path, channel) as browser:
            for page in publish:
                self.get(page)
            self.mark(channel)
            return browser.read_to_mark()

    def execute(self, *arguments: str, redis: RedisServer | None = None) -> None:
        """Run Python in a process of its own, as cron or Celery does.

        :param redis: Another Redis than that of the run.
        """
        subprocess.run(
            [str(self.python), *arguments],
            check=True,
            cwd=FOLDER,
            env={**os.environ, **environment(self._app, redis or self.redis)},
            timeout=30,
        )

    def _subscriptions(self, channel: str) -> int:
        return self.redis.listeners(channel)

    def _is_released(self, channel: str, number: int) -> bool:
        self.mark(channel)
        return self._subscriptions(channel) <= number


def environment(app: str, redis: RedisServer) -> dict[str, str]:
    """Return the variables by which an application finds its Redis, and `flask` finds it."""
    return {"FLASK_REDIS_URL": json.dumps(redis.url), "FLASK_APP": app}


@pytest.fixture(scope="session")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, RedisServer]]:
    """Return a Redis for each version."""
    assert OLD.exists(), "the environment is missing; run: make test-compatibility"
    with ExitStack() as stack:
        found: dict[Path, RedisServer] = {}
        for python in (OLD, NEW):
            found[python] = server = RedisServer(tmp_path_factory.mktemp("redis"))
            stack.callback(server.stop)
            server.start()
        yield found


@pytest.fixture(scope="module")
def both(
    redis_servers: dict[Path, RedisServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[Run, Run]]]:
    """Return what starts an application with 1.0 and with this version, once a module."""
    found: dict[str, tuple[Run, Run]] = {}
    with ExitStack() as stack:

        def start(name: str) -> tuple[Run, Run]:
            if name not in found:
                old, new = (
                    stack.enter_context(_serve(name, python, redis_servers[python], folder))
                    for python, folder in (
                        (OLD, tmp_path_factory.mktemp("old")),
                        (NEW, tmp_path_factory.mktemp("new")),
                    )
                )
                found[name] = old, new
            return found[name]

        yield start


@contextmanager
def _serve(name: str, python: Path, redis: RedisServer, folder: Path) -> Iterator[Run]:
    port = free_port()
    app = f"apps.{name}:app"
    command = [
        *(str(python), "-m", "gunicorn", app, "--bind", f"{LOOPBACK}:{port}"),
        *("--worker-class", "gevent", "--no-control-socket", "--graceful-timeout", "2"),
    ]
    run = Run(app, python, port, redis)
    log = folder / "gunicorn.log"
    with running(command, port, log, env=environment(app, redis), cwd=FOLDER):
        yield run


@pytest.fixture
def same(both: Callable[[str], tuple[Run, Run]]) -> Callable[[str, Callable[[Run], Any]], Any]:
    """Return what does the same with both versions, and checks that it comes to the same.

    :return: what it has come to.
    """

    def compare(name: str, scenario: Callable[[Run], Answer]) -> Answer:
        old, new = both(name)
        expected = scenario(old)
        assert scenario(new) == expected
        return expected

    return compare
