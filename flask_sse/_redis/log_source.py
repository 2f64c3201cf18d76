"""Where logs are read: on one Redis here, and in ``cluster/logs`` on one node of a cluster.

Only the thread of a log reader uses it, and each method blocks.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

import redis

from flask_sse._redis.cluster.errors import explain_cluster
from flask_sse._redis.log_commands import explain, is_read_only
from flask_sse._redis.pubsub import LOST, RedisConnection
from flask_sse._system.clock import monotonic

Command = tuple[str | bytes | int, ...]
Open = Callable[[], RedisConnection]
"""Makes a connection to Redis. It may block, and may raise any exception."""

_REPLICA_FOR: Final = 0.1
"""Seconds for which a connection to a replica is used."""
_ROLE: Final[Command] = ("HELLO", 2)
"""Asks for the role. Redis 6 and later answer it for everybody; any error is ignored."""


class LogSource(Protocol):
    """Executes commands that read logs."""

    def exchange(self, commands: Sequence[Command]) -> list[object]:
        """Return the answers to some commands; an error is an answer, too.

        :raises Exception: if Redis can't be reached.
        """
        ...

    def disconnect(self) -> None:
        """Close the connections."""


class ServerLogs:
    """The logs on one Redis: all commands are sent together."""

    def __init__(self, open_: Open) -> None:
        self._open = open_
        self._connection: RedisConnection | None = None
        self._opened = 0.0

    def exchange(self, commands: Sequence[Command]) -> list[object]:
        """Return the answers to some commands; an error is an answer, too."""
        try:
            return self._exchange(commands)
        except LOST:
            # The connection may have been idle for too long.
            self.disconnect()
            return self._exchange(commands)

    def disconnect(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _exchange(self, commands: Sequence[Command]) -> list[object]:
        is_new = self._connection is None
        if self._connection is None:
            self._connection = self._open()
            self._opened = monotonic()
        connection = self._connection
        packed = connection.pack_commands([_ROLE, *commands])
        connection.send_packed_command(packed, check_health=False)
        role, *replies = [read_reply(connection) for _ in range(len(commands) + 1)]
        for error in replies:
            if isinstance(error, redis.ResponseError) and is_read_only(error):
                raise explain(error)
        if not is_new and _is_replica(role) and monotonic() - self._opened > _REPLICA_FOR:
            # Its name may belong to another server by now, where the hub is subscribed.
            raise redis.ReadOnlyError("this Redis is a replica")
        return [*map(_explain_reply, replies)]


def read_reply(connection: RedisConnection) -> object:
    """Return the next reply, which may be an error.

    :raises Exception: if the connection is lost.
    """
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _explain_reply(reply: object) -> object:
    found = explain_cluster(reply) if isinstance(reply, redis.ResponseError) else None
    return found or reply


def _is_replica(role: object) -> bool:
    if not isinstance(role, list):
        return False
    fields = cast("list[object]", role)
    return b"role" in fields and b"master" not in fields
