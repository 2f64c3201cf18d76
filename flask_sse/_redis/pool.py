"""Pools for publishing, which don't send an event on a connection that may not work.

If a firewall or a NAT has dropped a connection, this shows only when something is sent on
it, or not even then. The data may have arrived, so a command must not be sent again, but a
PING can be. The pools can be shared between threads.
"""

import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast
from weakref import WeakKeyDictionary

import redis
from redis.sentinel import SentinelConnectionPool

from flask_sse._system.clock import monotonic

_TRUSTED_FOR: Final = 1.0
"""A connection that was idle for up to this many seconds is used without a PING."""
_PONG_WITHIN: Final = 1.0
_WAIT: Final = 5.0
_MOST_CONNECTIONS: Final = 1 << 16


class _Connection(Protocol):
    """The methods used of redis-py's connections, with the types that they lack."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def can_read(self, timeout: float) -> bool: ...
    def read_response(self) -> object: ...
    def send_command(self, command: str, *, check_health: bool) -> None: ...


@dataclass(slots=True)
class _Known:
    """What is known about a connection."""

    socket: object
    """Its socket. A connection that has connected again has another one."""
    generation: int
    """How often the pool had been renewed before it connected."""
    released: float = 0.0
    """When it was last released."""


class ConnectionLimit:
    """How many connections may be used at the same time; it is used with ``with``.

    :param number: How many.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        # redis-py has no pool that both waits for a free connection and supports sentinels. Unlike
        # a semaphore, this can be used while the garbage collector interrupts it: it may close a
        # generator of the application that publishes something at its end.
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(min(number, _MOST_CONNECTIONS)):
            self._free.put(None)

    def __enter__(self) -> None:
        """Wait until one more connection may be used.

        :raises redis.ConnectionError: if that takes more than 5 seconds.
        """
        try:
            self._free.get(timeout=_WAIT)
        except queue.Empty:
            raise redis.ConnectionError(
                f"all {self._number} connections for publishing have been in use for {_WAIT} "
                f"s; raise max_connections in the query of REDIS_URL"
            ) from None

    def __exit__(self, *_: object) -> None:
        """Let another one be used."""
        self._free.put(None)


class CheckedPool(redis.ConnectionPool):
    """A pool that replaces an idle connection if no PONG arrives."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._known: WeakKeyDictionary[object, _Known] = WeakKeyDictionary()
        self._generation = 0
        super().__init__(*args, **kwargs)  # pyright: ignore[reportUnknownMemberType] - untyped

    def reset(self) -> None:
        """Begin afresh, in the constructor and after a fork."""
        super().reset()
        # The garbage collector may close a generator of the application, which publishes at its
        # end, while this thread holds the lock. In redis-py 5 it is not reentrant.
        self._lock = threading.RLock()

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connection that works.

        :raises redis.RedisError: if no connection can be made.
        """
        generation = self._generation
        # The parameters have changed over the years; redis-py deprecates all of them.
        connection: Any = super().get_connection(  # pyright: ignore[reportUnknownMemberType]
            *args, **kwargs
        )
        known = self._known.get(connection)
        is_new = known is None or known.socket is not _socket_of(connection)
        if known is not None and not is_new:
            try:
                # Another thread may have put it back while this one renewed the pool.
                if known.generation != generation:
                    _reconnect(cast("_Connection", connection))
                    is_new = True
                elif monotonic() - known.released > _TRUSTED_FOR:
                    is_new = _revive(cast("_Connection", connection))
            except BaseException:
                connection.disconnect()
                self.release(connection)
                raise
        if is_new:
            self._known[connection] = _Known(_socket_of(connection), generation)
        return connection

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        known = self._known.get(connection)
        if known is not None:
            if known.generation != self._generation:
                connection.disconnect()
            known.released = monotonic()
        super().release(connection)

    @property
    def generation(self) -> int:
        """How often the pool has been renewed."""
        return self._generation

    def renew(self) -> None:
        """Make each connection connect again before it is used; those in use are used first."""
        self._generation += 1
        self.disconnect(inuse_connections=False)


class CheckedSentinelPool(CheckedPool, SentinelConnectionPool):
    """The same, for connections to the primary that the sentinels name."""


def _socket_of(connection: object) -> object:
    # From 5.0 to 8.1, redis-py has no public name for it.
    return getattr(connection, "_sock", None)


def _revive(connection: _Connection) -> bool:
    """Make sure that a connection works; return whether it had to be connected again."""
    if _answers(connection):
        return False
    _reconnect(connection)
    return True


def _reconnect(connection: _Connection) -> None:
    connection.disconnect()
    connection.connect()


def _answers(connection: _Connection) -> bool:
    with contextlib.suppress(redis.ConnectionError, redis.TimeoutError, OSError):
        connection.send_command("PING", check_health=False)
        if connection.can_read(timeout=_PONG_WITHIN):
            # Any answer proves that Redis is there, even an error that PING is forbidden.
            with contextlib.suppress(redis.ResponseError):
                connection.read_response()
            return True
    return False
