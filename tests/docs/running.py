"""Runs the documentation's examples, and remembers which of them the tests have run."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.support.processes import LOOPBACK, Process, free_port, running
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wheels import OFFLINE

from .blocks import EXAMPLES

RUN_BY_A_TEST: Final[set[str]] = {
    # See test_proxies.
    "deployment/nginx.conf",
    "deployment/apache.conf",
    "deployment/haproxy.cfg",
    "deployment/Caddyfile",
    # See test_history_clients.
    "fetching.mjs",
    "htmx.html",
    # See test_ends.
    "streams/templates/htmx_2.html",
    "streams/templates/htmx_4.html",
}
"""Files, commands, and languages of a page."""

_BIN: Final = Path(sys.executable).parent
_Test = TypeVar("_Test", bound=Callable[..., None])


def runs(*blocks: str) -> Callable[[_Test], _Test]:
    """Note which files, commands or languages a test runs."""
    RUN_BY_A_TEST.update(blocks)
    return lambda test: test


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a shell in which the packages of the tests are installed.

    Others can be installed without a network.
    """
    path = f"{_BIN}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "VIRTUAL_ENV": "", **OFFLINE, **variables}


def shell(command: str, folder: Path) -> str:
    """Return the output of a command, which must succeed."""
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def serving(command: str, port: int, folder: Path, **variables: str) -> Generator[Process]:
    """Run a server until the block ends."""
    log = folder / "server.log"
    env = environment(**variables)
    with running(["bash", "-c", command], port, log, env=env, cwd=folder) as process:
        yield process


@contextmanager
def serving_app(app: str, folder: Path, **variables: str) -> Generator[str]:
    """Run an application with Flask's own server until the block ends; yield its URL."""
    port = free_port()
    with serving(f"exec flask --app '{app}' run --port {port}", port, folder, **variables):
        yield f"http://{LOOPBACK}:{port}"


def post(url: str, **form: str) -> str:
    """Post a form, and return the answer."""
    with urlopen(url, urlencode(form).encode(), timeout=PATIENCE) as answer:
        text: str = answer.read().decode()
        return text


@contextmanager
def listening(server: RedisServer, channel: str) -> Generator[Callable[..., list[object]]]:
    """Subscribe; yield a function that waits for a number of events and returns them."""
    # redis-py leaves some types out.
    options: dict[str, Any] = {"ignore_subscribe_messages": True}
    with server.admin.pubsub(**options) as pubsub:  # pyright: ignore[reportUnknownMemberType]
        pubsub.subscribe(channel)
        server.wait_listeners(1, channel)
        receive = cast("Callable[..., dict[str, Any] | None]", pubsub.get_message)
        received: list[object] = []

        def payloads(number: int = 1) -> list[object]:
            def enough() -> bool:
                message = receive(timeout=0.1)
                if message is not None:
                    received.append(json.loads(message["data"]))
                return len(received) >= number

            wait_for(enough)
            return received

        yield payloads


def apart(check: Callable[[], None]) -> None:
    """Run a check in a separate process, since all share the ready-made instance."""
    with ProcessPoolExecutor(
        1,
        mp_context=get_context("spawn"),
        initializer=_find_examples,
    ) as pool:
        pool.submit(check).result(PATIENCE)


def _find_examples() -> None:
    sys.path.insert(0, str(EXAMPLES))


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for an example to do its work."""
    wait_until(condition, "the example does its work")
