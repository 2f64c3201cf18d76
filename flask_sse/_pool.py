"""Pools whose connections are asked for a PONG after they have been idle.

A firewall or a NAT that has forgotten a connection shows it only when something is sent
on that connection, or not even then. What was sent may have arrived, so a command must
not be sent again; a PING may. The pools can be shared between threads.
"""

import contextlib
import time
from typing import Any, Final, Protocol, cast
from weakref import WeakKeyDictionary

import redis
from redis.sentinel import SentinelConnectionPool

_TRUSTED_FOR: Final = 1.0
"""Seconds for which a connection may be idle and is used without a PING."""
_PONG_WITHIN: Final = 1.0


class _Connection(Protocol):
    """What is used of redis-py's connections, with the types that they lack."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def can_read(self, timeout: float) -> bool: ...
    def read_response(self) -> object: ...
    def send_command(self, command: str, *, check_health: bool) -> None: ...


class CheckedPool(redis.ConnectionPool):
    """A pool that replaces an idle connection on which no PONG comes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._released: WeakKeyDictionary[object, float] = WeakKeyDictionary()
        super().__init__(*args, **kwargs)  # pyright: ignore[reportUnknownMemberType] - untyped

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connection that is there.

        :raises redis.RedisError: if there is none to be had.
        """
        # Its parameters have changed over the years; redis-py deprecates the use of any.
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
    """The same for connections to the primary that sentinels name."""


def _revive(connection: _Connection) -> None:
    if not _answers(connection):
        connection.disconnect()
        connection.connect()


def _answers(connection: _Connection) -> bool:
    with contextlib.suppress(redis.ConnectionError, redis.TimeoutError, OSError):
        connection.send_command("PING", check_health=False)
        if connection.can_read(timeout=_PONG_WITHIN):
            # Any answer proves that Redis is there, even that PING is forbidden.
            with contextlib.suppress(redis.ResponseError):
                connection.read_response()
            return True
    return False
