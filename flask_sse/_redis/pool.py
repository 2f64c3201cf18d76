"""Pools that send a PING on connections that have been idle.

If a firewall or a NAT has dropped a connection, this shows only when something is sent on
it, or not even then. The data may have arrived, so a command must not be sent again, but a
PING can be. The pools can be shared between threads.
"""

import contextlib
import time
from typing import Any, Final, Protocol, cast
from weakref import WeakKeyDictionary

import redis
from redis.sentinel import SentinelConnectionPool

_TRUSTED_FOR: Final = 1.0
"""A connection that was idle for up to this many seconds is used without a PING."""
_PONG_WITHIN: Final = 1.0


class _Connection(Protocol):
    """The methods used of redis-py's connections, with the types that they lack."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def can_read(self, timeout: float) -> bool: ...
    def read_response(self) -> object: ...
    def send_command(self, command: str, *, check_health: bool) -> None: ...


class CheckedPool(redis.ConnectionPool):
    """A pool that replaces an idle connection if no PONG arrives."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._released: WeakKeyDictionary[object, float] = WeakKeyDictionary()
        super().__init__(*args, **kwargs)  # pyright: ignore[reportUnknownMemberType] - untyped

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connection that works.

        :raises redis.RedisError: if no connection can be made.
        """
        # The parameters have changed over the years; redis-py deprecates all of them.
        connection: Any = super().get_connection(  # pyright: ignore[reportUnknownMemberType]
            *args, **kwargs
        )
        if time.monotonic() - self._released.get(connection, 0.0) > _TRUSTED_FOR:
            try:
                _revive(cast("_Connection", connection))
            except BaseException:
                connection.disconnect()
                self.release(connection)
                raise
        return connection

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        self._released[connection] = time.monotonic()
        super().release(connection)


class CheckedSentinelPool(CheckedPool, SentinelConnectionPool):
    """The same, for connections to the primary that the sentinels name."""


def _revive(connection: _Connection) -> None:
    if not _answers(connection):
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
