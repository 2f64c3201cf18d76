"""The servers that the tests run, each as a separate process."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote
from urllib.request import urlopen

import psutil
import pytest
from gunicorn.config import Config

from tests.support.processes import LOOPBACK, Process, free_port, running
from tests.support.waiting import PATIENCE, wait_until

ROOT: Final = Path(__file__).parents[2]
QUICKSTART: Final = ROOT / "docs" / "examples" / "quickstart"
DEMO: Final = ROOT / "docs" / "examples" / "demo"
SITE: Final = "tests.apps.site:app"
ASGI_SITE: Final = "tests.apps.asgi:app"
BRIDGED_SITE: Final = "tests.apps.bridged:behind_"

WORKERS: Final[dict[str, tuple[str, ...]]] = {
    "sync": ("--workers", "1"),
    "gthread": ("--threads", "2"),
    "gevent": ("--worker-class", "gevent"),
}
"""gunicorn's workers that hand streams over, with as few threads or greenlets as possible."""

MOST_USED: Final = [
    "gevent",
    *(pytest.param(name, marks=pytest.mark.long) for name in ("gthread", "sync")),
]
"""The same workers, of which `make test` tries the recommended one; the others are long tests."""

GUNICORN_SETTINGS: Final = Config().settings
"""The settings that this version of gunicorn supports."""

# If streams did not end by themselves, a test of a stop would wait for one of these and fail.
_PATIENT: Final = ("--graceful-timeout", "600", "--timeout", "600")

# Later versions open one shared socket in the user's home.
_QUIET: Final = ("--no-control-socket",) if "control_socket_disable" in GUNICORN_SETTINGS else ()

_GEVENT_PYWSGI: Final = """
from gevent import monkey
monkey.patch_all()
from gevent.pywsgi import WSGIServer
from tests.apps.site import app
WSGIServer(("127.0.0.1", {port}), app, log=None).serve_forever()
"""

_EVENTLET: Final = """
import eventlet
eventlet.monkey_patch()
import eventlet.wsgi
from tests.apps.site import app
eventlet.wsgi.server(eventlet.listen(("127.0.0.1", {port})), app)
"""

_CHEROOT: Final = """
import signal
from cheroot.wsgi import Server
from tests.apps.site import app
server = Server(("127.0.0.1", {port}), app)
signal.signal(signal.SIGTERM, signal.default_int_handler)
server.safe_start()
"""

_BJOERN: Final = """
import bjoern
from tests.apps.site import app
bjoern.run(app, "127.0.0.1", {port})
"""

_WSGIREF: Final = """
from wsgiref.simple_server import make_server
from tests.apps.site import app
make_server("127.0.0.1", {port}, app).serve_forever()
"""

_THREADING_WSGIREF: Final = """
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server
from tests.apps.site import app
class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
make_server("127.0.0.1", {port}, app, ThreadingServer).serve_forever()
"""

_PYTHON: Final = ("{python}", "-m")
_GRANIAN: Final = (*_PYTHON, "granian", "--interface", "wsgi", "--blocking-threads", "5")
_UWSGI: Final = (
    *("{folder}/uwsgi", "--virtualenv", sys.prefix, "--http-socket", "{address}"),
    *("--module", SITE, "--master", "--die-on-term", "--enable-threads"),
)
_MOD_WSGI: Final = (
    *("{folder}/mod_wsgi-express", "start-server", "--application-type", "module"),
    *("tests.apps.site", "--callable-object", "app", "--host", LOOPBACK, "--port", "{port}"),
    *("--server-root", "{work}", "--working-directory", str(ROOT), "--log-to-terminal"),
)
# Apache refuses to run as root, and other users can't read root's files.
_NOT_AS_ROOT: Final = ("unshare", "--user", "--map-user=1000", "--map-group=1000")

COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "flask": (*_PYTHON, "flask", "--app", SITE, "run", "--port", "{port}"),
    "flask --without-threads": (
        *(*_PYTHON, "flask", "--app", SITE, "run", "--without-threads", "--port", "{port}"),
    ),
    "wsgiref": ("{python}", "-c", _WSGIREF),
    "wsgiref, threading": ("{python}", "-c", _THREADING_WSGIREF),
    "gevent.pywsgi": ("{python}", "-c", _GEVENT_PYWSGI),
    "eventlet": ("{python}", "-c", _EVENTLET),
    "waitress": (*_PYTHON, "waitress", "--listen={address}", SITE),
    "cheroot": ("{python}", "-c", _CHEROOT),
    "uwsgi --threads": (*_UWSGI, "--threads", "5"),
    "uwsgi --gevent": (*_UWSGI, "--gevent", "100", "--gevent-monkey-patch"),
    "uwsgi": _UWSGI,
    "bjoern": ("{python}", "-c", _BJOERN),
    "mod_wsgi": (*(_NOT_AS_ROOT if os.geteuid() == 0 else ()), *_MOD_WSGI),
    "granian": (*_GRANIAN, "--port", "{port}", SITE),
    "granian --workers": (*_GRANIAN, "--workers", "2", "--port", "{port}", SITE),
    "uvicorn": (*_PYTHON, "uvicorn", "--port", "{port}", ASGI_SITE),
    "uvicorn, starlette": (*_PYTHON, "uvicorn", "--port", "{port}", f"{BRIDGED_SITE}starlette"),
    "uvicorn, asgiref": (*_PYTHON, "uvicorn", "--port", "{port}", f"{BRIDGED_SITE}asgiref"),
    "hypercorn": (*_PYTHON, "hypercorn", "--bind", "{address}", ASGI_SITE),
    "hypercorn wsgi": (*_PYTHON, "hypercorn", "--bind", "{address}", f"wsgi:{SITE}"),
}
"""The commands that start the servers, except gunicorn."""


class Site:
    """An application in a server's process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.port = process.port

    def get(self, path: str) -> str:
        """Return the server's answer."""
        with urlopen(f"http://{LOOPBACK}:{self.port}{path}", timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
            return text

    def publish(self, data: str, channel: str = "sse") -> int:
        """Make the application publish an event."""
        return int(self.get(f"/publish?data={quote(data)}&channel={quote(channel)}"))

    def worker(self) -> psutil.Process:
        """Return gunicorn's worker, once there is exactly one."""
        children = self.process.children
        wait_until(lambda: len(children()) == 1, "one worker")
        return children()[0]

    def log(self) -> str:
        """Return the server's log."""
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
        *_PATIENT,
        *options,
    ]
    env = _environment(settings, environment)
    with running(command, port, folder / f"gunicorn-{port}.log", env=env, cwd=cwd) as process:
        yield Site(process)


class Standing:
    """Sites that are started once for all tests that need one of their kind.

    :param folder: Where their logs are.
    :param settings: The settings of all of them.
    """

    def __init__(self, folder: Path, stack: ExitStack, **settings: object) -> None:
        self._folder = folder
        self._stack = stack
        self._settings = settings
        self._sites: dict[str, Site] = {}

    def gunicorn(self, *options: str, app: str = SITE, **settings: object) -> Site:
        """Return the site under gunicorn with these options and additional settings."""
        kind = repr((options, app, settings))
        if kind not in self._sites:
            site = gunicorn(
                self._folder, *options, app=app, settings={**self._settings, **settings}
            )
            self._sites[kind] = self._stack.enter_context(site)
        return self._sites[kind]


@contextmanager
def gunicorn_pywsgi(folder: Path, *, settings: Mapping[str, object]) -> Iterator[Site]:
    """Run the site under gunicorn's worker that uses gevent's own server."""
    options = ("--worker-class", "gunicorn.workers.ggevent.GeventPyWSGIWorker")
    with gunicorn(folder, *options, settings=settings) as site:
        yield site


@contextmanager
def gunicorn_eventlet(folder: Path, *, settings: Mapping[str, object]) -> Iterator[Site]:
    """Run the site under gunicorn's worker with eventlet's greenlets."""
    with gunicorn(folder, "--worker-class", "eventlet", settings=settings) as site:
        yield site


def other(name: str, *options: str) -> Serve:
    """Return a function that runs the site under a server of :data:`COMMANDS`."""

    @contextmanager
    def serve(folder: Path, *, settings: Mapping[str, object]) -> Iterator[Site]:
        port = free_port()
        words = {
            "python": sys.executable,
            "folder": Path(sys.executable).parent,
            "work": folder,
            "port": port,
            "address": f"{LOOPBACK}:{port}",
        }
        command = [*(part.format(**words) for part in COMMANDS[name]), *options]
        log = folder / f"{name.replace(' ', '')}-{port}.log"
        with running(command, port, log, env=_environment(settings), cwd=ROOT) as process:
            yield Site(process)

    return serve


@contextmanager
def sync(folder: Path, *, settings: Mapping[str, object]) -> Iterator[Site]:
    """Run the site under gunicorn's default worker, which serves one request at a time."""
    with gunicorn(folder, *WORKERS["sync"], settings=settings) as site:
        yield site


@contextmanager
def gthread(folder: Path, *, settings: Mapping[str, object]) -> Iterator[Site]:
    """Run the site under gunicorn's worker with two threads."""
    with gunicorn(folder, *WORKERS["gthread"], settings=settings) as site:
        yield site


def _environment(
    settings: Mapping[str, object] | None, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment from which the site reads its settings, as JSON."""
    # Nothing that a test waits for may happen because of a keep-alive, unless it asks for some.
    settings = {"SSE_KEEPALIVE": 600, **(settings or {})}
    config = {f"FLASK_{key}": json.dumps(value) for key, value in settings.items()}
    return {**config, **(environment or {})}
