"""The servers that the tests run, each as a process of its own."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote
from urllib.request import urlopen

import psutil
from gunicorn.config import Config

from tests.support.processes import LOOPBACK, Process, free_port, running
from tests.support.waiting import wait_until

ROOT: Final = Path(__file__).parents[2]
QUICKSTART: Final = ROOT / "docs" / "examples" / "quickstart"
SITE: Final = "tests.apps.site:app"

WORKERS: Final[dict[str, tuple[str, ...]]] = {
    "sync": ("--workers", "1"),
    "gthread": ("--threads", "2"),
    "gevent": ("--worker-class", "gevent"),
}
"""gunicorn's workers that streams are taken over from, with as few places as there can be."""

GUNICORN_SETTINGS: Final = Config().settings
"""What this version of gunicorn can be told."""

# Later ones open a socket in the user's home, one for all.
_QUIET: Final = ("--no-control-socket",) if "control_socket_disable" in GUNICORN_SETTINGS else ()

_UWSGI: Final = ("--master", "--die-on-term", "--enable-threads")

_PYWSGI: Final = """
from gevent import monkey
monkey.patch_all()
from gevent.pywsgi import WSGIServer
from tests.apps.site import app
WSGIServer(("127.0.0.1", {port}), app, log=None).serve_forever()
"""


class Site:
    """An application in a server's process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.port = process.port

    def get(self, path: str) -> str:
        """Return what the server answers."""
        with urlopen(f"http://{LOOPBACK}:{self.port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def publish(self, data: str, channel: str = "sse") -> int:
        """Have the application publish something."""
        return int(self.get(f"/publish?data={quote(data)}&channel={quote(channel)}"))

    def worker(self) -> psutil.Process:
        """Return gunicorn's one worker, once there is just one."""
        children = self.process.children
        wait_until(lambda: len(children()) == 1, "one worker")
        return children()[0]

    def log(self) -> str:
        """Return what the server has logged."""
        return self.process.log.read_text()


Serve = Callable[..., AbstractContextManager[Site]]


@contextmanager
def gunicorn(
    folder: Path,
    *options: str,
    app: str = SITE,
    cwd: Path = ROOT,
    port: int | None = None,
    settings: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """Run *app* under gunicorn, by default with one gevent worker."""
    port = port or free_port()
    options = options or WORKERS["gevent"]
    command = [
        *(sys.executable, "-m", "gunicorn", app, "--bind", f"{LOOPBACK}:{port}"),
        *_QUIET,
        *options,
    ]
    env = _environment(settings, environment)
    with running(command, port, folder / f"gunicorn-{port}.log", env=env, cwd=cwd) as process:
        yield Site(process)


def flask_server(folder: Path, *, settings: Mapping[str, object]) -> AbstractContextManager[Site]:
    """Run the site under Flask's own server, which has a thread for each request."""
    port = free_port()
    return _python(folder, "flask", port, settings, "-m", "flask", "--app", SITE, "run", "-p", port)


def pywsgi(folder: Path, *, settings: Mapping[str, object]) -> AbstractContextManager[Site]:
    """Run the site under gevent's own server."""
    port = free_port()
    return _python(folder, "pywsgi", port, settings, "-c", _PYWSGI.format(port=port))


def waitress(folder: Path, *, settings: Mapping[str, object]) -> AbstractContextManager[Site]:
    """Run the site under waitress."""
    port = free_port()
    address = f"--listen={LOOPBACK}:{port}"
    return _python(folder, "waitress", port, settings, "-m", "waitress", address, SITE)


def uwsgi(folder: Path, *, settings: Mapping[str, object]) -> AbstractContextManager[Site]:
    """Run the site under uWSGI, with five threads."""
    return _uwsgi(folder, "uwsgi", settings, "--threads", "5")


def uwsgi_gevent(folder: Path, *, settings: Mapping[str, object]) -> AbstractContextManager[Site]:
    """Run the site under uWSGI, with greenlets."""
    options = ("--gevent", "100", "--gevent-monkey-patch")
    return _uwsgi(folder, "uwsgi_gevent", settings, *options)


@contextmanager
def sync(folder: Path, *, settings: Mapping[str, object]) -> Iterator[Site]:
    """Run the site under gunicorn's default worker, which serves one request at a time."""
    with gunicorn(folder, *WORKERS["sync"], settings=settings) as site:
        yield site


@contextmanager
def gthread(folder: Path, *, settings: Mapping[str, object]) -> Iterator[Site]:
    """Run the site under gunicorn's worker with threads, two of them."""
    with gunicorn(folder, *WORKERS["gthread"], settings=settings) as site:
        yield site


@contextmanager
def _uwsgi(
    folder: Path, name: str, settings: Mapping[str, object], *options: str
) -> Iterator[Site]:
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("uwsgi")), "--virtualenv", sys.prefix),
        *("--http-socket", f"{LOOPBACK}:{port}", "--module", SITE),
        *_UWSGI,
        *options,
    ]
    log = folder / f"{name}-{port}.log"
    with running(command, port, log, env=_environment(settings), cwd=ROOT) as process:
        yield Site(process)


@contextmanager
def _python(
    folder: Path, name: str, port: int, settings: Mapping[str, object], *arguments: object
) -> Iterator[Site]:
    command = [sys.executable, *map(str, arguments)]
    log = folder / f"{name}-{port}.log"
    with running(command, port, log, env=_environment(settings), cwd=ROOT) as process:
        yield Site(process)


def _environment(
    settings: Mapping[str, object] | None, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment from which the site reads its settings, as JSON."""
    config = {f"FLASK_{key}": json.dumps(value) for key, value in (settings or {}).items()}
    return {**config, **(environment or {})}
