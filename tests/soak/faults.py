"""What is done to Redis, the sites and the clients, in random order."""

import contextlib
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil
import redis

from tests.soak.crowd import Crowd
from tests.soak.publishing import Worker
from tests.soak.truth import Truth
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until

Fault = Callable[[], None]

OPTIONS: Final = {
    "appendonly": "yes",
    # What Redis has answered is with the system, and survives the end of Redis.
    "appendfsync": "no",
    "auto-aof-rewrite-percentage": "0",
}


class Saboteur(Worker):
    """Makes faults in random order, and waits for a while after each.

    At first it makes each one once, and then some more often than others.

    :param pause: The longest time between two faults, in seconds.
    """

    def __init__(self, rng: random.Random, pause: float) -> None:
        super().__init__()
        self.rng = rng
        self.counts: Counter[str] = Counter()
        self.journal: list[tuple[float, str]] = []
        """When each fault was made, to look for the cause of a failure."""
        self._pause = pause
        self._next: list[str] = []
        self._is_first = True

    def step(self) -> None:
        """Make a fault."""
        faults = self.faults()
        if not self._next:
            names = [
                name
                for name, (weight, _) in faults.items()
                for _ in range(1 if self._is_first else weight)
            ]
            self._next = self.rng.sample(names, len(names))
            self._is_first = False
        name = self._next.pop()
        self.journal.append((time.time(), name))
        faults[name][1]()
        self.counts[name] += 1
        self.stopping.wait(self.rng.uniform(0.1, 1) * self._pause)

    def faults(self) -> dict[str, tuple[int, Fault]]:
        """Return what can be done, and how often in comparison with the others."""
        raise NotImplementedError

    def hold(self, shortest: float, longest: float) -> None:
        """Leave something as it is for some seconds."""
        self.stopping.wait(self.rng.uniform(shortest, longest))


class RedisSaboteur(Saboteur):
    """Makes the faults of Redis.

    :param folder: Where to keep copies of its data.
    :param truth: What is to know of the events that Redis is about to lose.
    """

    def __init__(
        self, rng: random.Random, pause: float, server: RedisServer, folder: Path, truth: Truth
    ) -> None:
        super().__init__(rng, pause)
        self._server = server
        self._data = Path(server.options["dir"])
        self._snapshot = folder / "snapshot"
        self._killed = folder / "killed"
        self._truth = truth

    def step(self) -> None:
        """Make a fault, and before the first one a snapshot."""
        if not self._snapshot.exists():
            self._take_snapshot()
        super().step()

    def faults(self) -> dict[str, tuple[int, Fault]]:
        """Return what can be done to Redis."""
        return {
            "restart with all data": (2, self._restart),
            "kill -9, restart with all data": (2, self._crash),
            "snapshot (no fault)": (3, self._take_snapshot),
            "restart from the last snapshot": (2, self._go_back),
            "FLUSHALL": (1, self._flush),
            "CLIENT KILL TYPE pubsub": (3, self._kill_pubsub),
            "CLIENT KILL TYPE normal": (3, self._kill_normal),
            "SIGSTOP of Redis": (1, self._freeze),
        }

    def start(self) -> None:
        """Start Redis, and wait until it has loaded its data."""
        self._server.start()
        wait_until(self._answers, "Redis has loaded its data", 60)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self._server.admin.ping())
        return False

    def _restart(self) -> None:
        self._server.stop()
        self.start()

    def _crash(self) -> None:
        self._server.crash()
        self.start()

    def _take_snapshot(self) -> None:
        # Redis only appends to its files, so a copy is what they were a moment ago.
        shutil.rmtree(self._snapshot, ignore_errors=True)
        shutil.copytree(self._data, self._snapshot)

    def _go_back(self) -> None:
        self._server.crash()
        self._data.rename(self._killed)
        shutil.copytree(self._snapshot, self._data)
        self.start()
        self._truth.read(self._killed)
        shutil.rmtree(self._killed)

    def _flush(self) -> None:
        self._server.admin.flushall()

    def _kill_pubsub(self) -> None:
        for _ in range(self.rng.randint(1, 20)):
            self._server.kill_pubsub()
            self.hold(0.05, 0.05)

    def _kill_normal(self) -> None:
        for _ in range(self.rng.randint(1, 20)):
            self._server.admin.client_kill_filter(_type="normal", skipme=True)
            self.hold(0.05, 0.05)

    def _freeze(self) -> None:
        self._server.freeze()
        self.hold(0.5, 7)
        self._server.thaw()


class SiteSaboteur(Saboteur):
    """Makes the faults of the sites and of their clients."""

    def __init__(
        self, rng: random.Random, pause: float, sites: Sequence[Site], crowd: Crowd, clients: int
    ) -> None:
        super().__init__(rng, pause)
        self._sites = sites
        self._crowd = crowd
        self._clients = clients

    def faults(self) -> dict[str, tuple[int, Fault]]:
        """Return what can be done to workers and clients."""
        return {
            "kill -9 of a worker": (2, self._kill),
            "SIGHUP of a server": (2, self._reload),
            "SIGSTOP of a worker": (1, self._suspend),
            "cut of connections": (3, self._cut),
            "absence of clients": (2, self._leave),
            "clients that do not read": (3, self._stop_reading),
        }

    def _worker(self) -> psutil.Process | None:
        workers = self.rng.choice(self._sites).process.children()
        return self.rng.choice(workers) if workers else None

    def _kill(self) -> None:
        worker = self._worker()
        if worker is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()

    def _reload(self) -> None:
        self.rng.choice(self._sites).process.send(signal.SIGHUP)

    def _suspend(self) -> None:
        worker = self._worker()
        if worker is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.suspend()
            self.hold(0.5, 4)
            worker.resume()

    def _cut(self) -> None:
        self._crowd.cut(self._some(0.5), self.rng)

    def _leave(self) -> None:
        self._crowd.leave(self._some(0.3), self.rng.uniform(1, 10), self.rng)

    def _stop_reading(self) -> None:
        self._crowd.stop_reading(self._some(0.3), self.rng.uniform(1, 20), self.rng)

    def _some(self, share: float) -> int:
        return self.rng.randint(1, max(1, int(self._clients * share)))
