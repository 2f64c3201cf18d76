"""A real redis-server, which a test can start, stop, freeze and query."""

import signal
from collections.abc import Mapping
from pathlib import Path

import redis
import trustme

from tests.support.processes import LOOPBACK, Process, free_port
from tests.support.redis_programs import program as find_server
from tests.support.waiting import PATIENCE, wait_until


class RedisServer:
    """A redis-server on its own port, which stores nothing on disk.

    :param program: The server's path, unless it is the one that was chosen for the tests.
    :param environment: Environment variables in addition to those of the tests.
    :param options: Other options, such as ``requirepass``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        program: str | None = None,
        environment: Mapping[str, str] | None = None,
        **options: str,
    ) -> None:
        self.port = port or free_port()
        self.folder = folder
        self.program = program or find_server()
        self.options = options
        self._environment = environment or {}
        self._process: Process | None = None
        self._admin: redis.Redis | None = None

    @property
    def url(self) -> str:
        """The URL for ``REDIS_URL``."""
        return f"redis://{LOOPBACK}:{self.port}"

    @property
    def admin(self) -> redis.Redis:
        """A client for the test."""
        if self._admin is None:
            password = self.options.get("requirepass")
            self._admin = redis.Redis(
                host=LOOPBACK,
                port=self.port,
                password=password,
                client_name="tests",
                ssl="tls-port" in self.options,
                ssl_ca_certs=self.options.get("tls-ca-cert-file"),
            )
        return self._admin

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {
            "port": str(self.port),
            "bind": LOOPBACK,
            "save": "",
            "appendonly": "no",
            "dir": str(self.folder),
            **self.options,
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        log = self.folder / f"redis-{self.port}.log"
        self._process = Process([self.program, *arguments], self.port, log, self._environment, None)
        self._process.wait_listening()

    @staticmethod
    def over_tls(folder: Path, authority: trustme.CA) -> "RedisServer":
        """Return a server that only speaks TLS, with a certificate of *authority*."""
        server = RedisServer(folder)
        server.use_tls(authority)
        return server

    def use_tls(self, authority: trustme.CA) -> None:
        """Only speak TLS from the next start on, with a certificate of *authority*."""
        # The packages of the newer servers are built without TLS.
        self.program = find_server("system")
        certificate = authority.issue_cert(LOOPBACK)
        paths = {
            name: str(self.folder / f"{name}-{self.port}.pem") for name in ("key", "cert", "ca")
        }
        certificate.private_key_pem.write_to_path(paths["key"])
        certificate.cert_chain_pems[0].write_to_path(paths["cert"])
        authority.cert_pem.write_to_path(paths["ca"])
        self.options |= {
            "port": "0",
            "tls-port": str(self.port),
            "tls-cert-file": paths["cert"],
            "tls-key-file": paths["key"],
            "tls-ca-cert-file": paths["ca"],
            "tls-auth-clients": "no",
            "tls-replication": "yes",
        }

    def start_sentinel(self, name: str, master: "RedisServer", quorum: int = 1) -> None:
        """Start it as a sentinel that watches *master*, and fails over after a second.

        :param quorum: How many sentinels must agree that it is down.
        """
        config = self.folder / f"sentinel-{self.port}.conf"
        options = {"port": str(self.port), "bind": LOOPBACK, **self.options}
        config.write_text(
            "".join(f"{key} {value}\n" for key, value in options.items())
            + f"sentinel monitor {name} {LOOPBACK} {master.port} {quorum}\n"
            f"sentinel down-after-milliseconds {name} 1000\n"
        )
        log = self.folder / f"sentinel-{self.port}.log"
        command = [self.program, str(config), "--sentinel"]
        self._process = Process(command, self.port, log, {}, None)
        self._process.wait_listening()

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        if self._process is not None:
            self._process.stop()
            self._process = None

    def crash(self) -> None:
        """Kill it, so that it can't write any more; :meth:`start` loads its last snapshot."""
        assert self._process is not None
        self._process.send(signal.SIGKILL)
        self.stop()

    def freeze(self) -> None:
        """Pause it, with all its connections open."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume it."""
        assert self._process is not None
        self._process.send(signal.SIGCONT)

    def kill_pubsub(self) -> int:
        """Close all Pub/Sub connections; return how many there were."""
        return int(self.admin.client_kill_filter(_type="pubsub"))

    def pubsub_connections(self) -> int:
        """Return how many connections are subscribed to any channel."""
        return len(self.admin.client_list(_type="pubsub"))

    def listeners(self, channel: str = "sse") -> int:
        """Return how many connections are subscribed to *channel*."""
        try:
            [(_, number)] = self.admin.pubsub_numsub(channel)
        except redis.ConnectionError:
            # When a sentinel promotes a Redis, the Redis closes its connections.
            [(_, number)] = self.admin.pubsub_numsub(channel)
        return int(number)

    def wait_listeners(self, number: int, channel: str = "sse", seconds: float = PATIENCE) -> None:
        """Wait until this many connections are subscribed to *channel*."""
        wait_until(
            lambda: self.listeners(channel) == number,
            f"{number} connections subscribed to {channel!r}",
            seconds,
        )
