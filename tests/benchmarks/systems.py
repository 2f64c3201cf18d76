"""The systems that are compared: how each is installed, started and published to."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import string
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .environments import compiled, environment, output_of, package_versions
from .processes import LOOPBACK, Cores, free_port, pinned, running
from .publishers import (
    ClusterPublisher,
    HttpPublisher,
    LinePublisher,
    Publisher,
    RedisPublisher,
)
from .redis_server import RedisCluster, RedisServer, redis_cluster, redis_server
from .usage import ProcessTree

_SERVERS: Final = Path(__file__).parent / "servers"
_ROOT: Final = Path(__file__).parents[2]
_GUNICORN: Final = (
    *("gunicorn", "-w", "1", "--backlog", "4096"),
    *("--bind", f"{LOOPBACK}:{{port}}", "flask_app:app"),
)
_GEVENT: Final = (*_GUNICORN, "-k", "gevent", "--worker-connections", "65536")


class LeftOutError(Exception):
    """A system that this machine has not got."""


@dataclass(frozen=True)
class Place:
    """Where a run happens: the folder for environments and logs, and the cores."""

    work: Path
    cores: Cores

    @property
    def logs(self) -> Path:
        """The folder for the processes' output."""
        return self.work / "logs"


@dataclass(frozen=True)
class Running:
    """A system that is up."""

    port: int
    tree: ProcessTree
    publisher: Publisher
    redis: RedisServer | RedisCluster | None


class System(ABC):
    """One of the systems."""

    name: str
    title: str
    silent = False
    """Nothing is sent, not even the headers, before the first event."""
    has_views = False
    """It also serves the view ``/busy``."""
    has_channels = False
    """A client receives the events of the channel in its URL, and no others."""
    versions: dict[str, str]

    @abstractmethod
    def prepare(self, place: Place) -> None:
        """Install what is needed and find out the versions.

        :raises LeftOutError: where it cannot be had.
        """

    @abstractmethod
    def run(self, place: Place) -> AbstractContextManager[Running]:
        """Run the system for as long as the block lasts."""

    def publish_rate(self, place: Place) -> float | None:
        """Return how many events a second one process publishes; ``None`` if it has no function."""
        return None


class PythonSystem(System):
    """A Python application, behind a Redis of its own, in an environment for its requirements."""

    environment: str
    """The name of the environment; systems with the same requirements share one."""
    requirements: Sequence[str]
    depends_on: Sequence[Path] = ()
    command: Sequence[str]
    packages: Sequence[str]

    def prepare(self, place: Place) -> None:
        """Make the environment."""
        binaries = environment(self._folder(place), self.requirements, self.depends_on)
        self.versions = package_versions(binaries, self.packages)

    @contextmanager
    def run(self, place: Place) -> Iterator[Running]:
        """Run Redis and the server."""
        port = free_port()
        program, *arguments = (part.format(port=port) for part in self.command)
        with (
            self.redis(place) as redis,
            running(
                [self._folder(place) / "bin" / program, *arguments],
                cores=place.cores.server,
                log=place.logs / f"{self.name}.log",
                port=port,
                env={"REDIS_URL": redis.url, "PYTHONPATH": ""},
                cwd=_SERVERS,
            ) as pid,
            closing(_publisher_to(redis)) as publisher,
        ):
            yield Running(port, ProcessTree(pid), publisher, redis)

    def redis(self, place: Place) -> AbstractContextManager[RedisServer | RedisCluster]:
        """Run what is behind it."""
        return redis_server(place.cores.redis, place.logs)

    def _folder(self, place: Place) -> Path:
        """Return the folder of the environment."""
        return place.work / "environments" / self.environment


class FlaskSystem(PythonSystem):
    """An application with ``sse.publish`` and a view that keeps the processor busy."""

    has_views = True
    publishes = True
    """``sse.publish()`` is measured: once for each version, as the worker has no part in it."""

    def publish_rate(self, place: Place) -> float | None:
        """Publish from a process on the server's core."""
        if not self.publishes:
            return None
        with self.redis(place) as redis, pinned(place.cores.server):
            done = subprocess.run(
                [self._folder(place) / "bin" / "python", "publish.py"],
                stdout=subprocess.PIPE,
                env={**os.environ, "REDIS_URL": redis.url, "PYTHONPATH": ""},
                cwd=_SERVERS,
                check=True,
                timeout=60,
            )
        return float(done.stdout)


class FlaskSSE2(FlaskSystem):
    """The code in this repository, with the command line that its documentation gives."""

    name = environment = "flask-sse-2"
    title = "Flask-SSE 2, gunicorn's gevent worker"
    requirements = (f"-e{_ROOT}[gevent,hiredis]",)
    depends_on = (_ROOT / "pyproject.toml",)
    has_channels = True
    command: Sequence[str] = _GEVENT
    packages: Sequence[str] = ("Flask-SSE", "Flask", "redis", "hiredis", "gunicorn", "gevent")


class FlaskSSE2GThread(FlaskSSE2):
    """The same code with a few threads: far fewer than there are streams."""

    name = "flask-sse-2-gthread"
    title = "Flask-SSE 2, gunicorn's gthread worker with 4 threads"
    publishes = False
    command = (*_GUNICORN, "-k", "gthread", "--threads", "4")
    packages = ("Flask-SSE", "Flask", "redis", "hiredis", "gunicorn")


class FlaskSSE2Sync(FlaskSSE2):
    """The same code with gunicorn's defaults: a worker that answers one request at a time."""

    name = "flask-sse-2-sync"
    title = "Flask-SSE 2, gunicorn's sync worker"
    publishes = False
    command = _GUNICORN
    packages = ("Flask-SSE", "Flask", "redis", "hiredis", "gunicorn")


class FlaskSSE2Cluster(FlaskSSE2):
    """The same code behind a Redis Cluster, whose nodes all have the core of the one Redis."""

    name = "flask-sse-2-cluster"
    title = "Flask-SSE 2, gunicorn's gevent worker, a Redis Cluster of three primaries"

    def redis(self, place: Place) -> AbstractContextManager[RedisCluster]:
        """Run the cluster."""
        return redis_cluster(place.cores.redis, place.logs)


class FlaskSSE1(FlaskSystem):
    """The version before, with the same application, command line and versions of all else."""

    name = environment = "flask-sse-1"
    title = "Flask-SSE 1.0.0, gunicorn's gevent worker"
    silent = True
    requirements = ("Flask-SSE==1.0.0", "gunicorn[gevent]", "redis", "hiredis")
    command = _GEVENT
    packages = ("Flask-SSE", "Flask", "redis", "hiredis", "gunicorn", "gevent")


class SSEStarlette(PythonSystem):
    """The usual choice in the asyncio world, with one subscription and uvicorn's fastest parts."""

    name = environment = "sse-starlette"
    title = "sse-starlette 3.7 with one hub, uvicorn"
    requirements = ("sse-starlette~=3.7.0", "starlette", "uvicorn[standard]", "redis", "hiredis")
    command = (
        *("uvicorn", "starlette_app:app", "--host", LOOPBACK, "--port", "{port}"),
        *(
            "--backlog",
            "4096",
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            "--no-access-log",
            "--log-level",
            "warning",
        ),
    )
    packages = ("sse-starlette", "starlette", "uvicorn", "uvloop", "httptools", "redis", "hiredis")


class FloorPython(PythonSystem):
    """The least that a loop in Python does for an event: wait, read, decode, frame, send."""

    name = "floor-python"
    title = "a Python loop that calls send() once per client and event"
    has_channels = True
    command = ("python", "floor.py", "{port}")

    def prepare(self, place: Place) -> None:
        """Find out the version: it needs no packages, so the benchmark's own Python will do."""
        self.versions = {"Python": platform.python_version()}

    def _folder(self, place: Place) -> Path:
        """Return the folder of the Python that runs this."""
        return Path(sys.prefix)


class Nchan(System):
    """nginx's push module as Debian packages it, with its in-memory store and its own publisher.

    It is published to over HTTP, not through Redis: its cheapest way in, with one process fewer
    than the others have.
    """

    name = "nchan"
    title = "nchan inside nginx, in memory"
    has_channels = True

    def prepare(self, place: Place) -> None:
        """Find nginx and the module."""
        # Debian keeps nginx where only root looks.
        nginx = shutil.which(
            "nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
        )
        if nginx is None:
            raise LeftOutError("there is no nginx here (Debian: nginx, libnginx-mod-nchan)")
        self._nginx = nginx
        built = output_of([nginx, "-V"])
        folder = re.search(r"--modules-path=(\S+)", built)
        self._module = Path(folder[1] if folder else "modules") / "ngx_nchan_module.so"
        if not self._module.is_file():
            raise LeftOutError("nginx has no nchan module here (Debian: libnginx-mod-nchan)")
        self.versions = {
            "nginx": built.partition("\n")[0].rpartition("/")[2],
            **_debian_version("libnginx-mod-nchan"),
        }

    @contextmanager
    def run(self, place: Place) -> Iterator[Running]:
        """Run nginx."""
        port = free_port()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        template = string.Template((_SERVERS / "nchan.conf").read_text())
        folder = place.logs
        configuration = folder / "nchan.conf"
        configuration.write_text(
            template.substitute(
                module=self._module,
                files=files,
                # nginx takes memory for each of them when it starts.
                connections=min(files - 64, 65536),
                work=folder,
                port=port,
            )
        )
        log = folder / "nginx-error.log"
        command: list[str | Path] = [self._nginx, "-e", log, "-p", folder, "-c", configuration]
        with (
            running(
                command, cores=place.cores.server, log=folder / f"{self.name}.log", port=port
            ) as pid,
            closing(HttpPublisher((LOOPBACK, port))) as publisher,
        ):
            yield Running(port, ProcessTree(pid), publisher, None)


class Floor(System):
    """One ``send()`` for each client and event, in C, with no server around it."""

    name = "floor"
    title = "a C program that calls send() once per client and event"
    has_channels = True

    def prepare(self, place: Place) -> None:
        """Compile it."""
        program = compiled(_SERVERS / "floor.c", place.work / "floor")
        if program is None:
            raise LeftOutError("there is no C compiler here")
        self._program = program
        self.versions = {"compiler": output_of(["cc", "--version"]).partition("\n")[0]}

    @contextmanager
    def run(self, place: Place) -> Iterator[Running]:
        """Run it."""
        port, control = free_port(), free_port()
        log = place.logs / f"{self.name}.log"
        with (
            running(
                [self._program, str(port), str(control)],
                cores=place.cores.server,
                log=log,
                port=port,
            ) as pid,
            closing(LinePublisher((LOOPBACK, control))) as publisher,
        ):
            yield Running(port, ProcessTree(pid), publisher, None)


def _publisher_to(redis: RedisServer | RedisCluster) -> Publisher:
    """Return what publishes there."""
    if isinstance(redis, RedisCluster):
        return ClusterPublisher([(LOOPBACK, node.port) for node in redis.nodes])
    return RedisPublisher((LOOPBACK, redis.port))


def _debian_version(package: str) -> dict[str, str]:
    """Return the version of an installed package, nothing on another distribution."""
    if shutil.which("dpkg-query") is None:
        return {}
    return {package: output_of(["dpkg-query", "-W", "-f", "${Version}", package])}


SYSTEMS: Final[tuple[type[System], ...]] = (
    FlaskSSE2,
    FlaskSSE2GThread,
    FlaskSSE2Sync,
    FlaskSSE2Cluster,
    FlaskSSE1,
    SSEStarlette,
    Nchan,
    FloorPython,
    Floor,
)
