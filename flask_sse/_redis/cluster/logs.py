"""Where logs are read in a cluster: on one of its nodes.

Only the thread of a log reader uses it, and each method blocks.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Final

import redis

from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.log_source import Command, read_reply
from flask_sse._redis.pubsub import LOST, RedisConnection, open_connection
from flask_sse._redis.url import Address
from flask_sse._system.clock import monotonic

_ANSWER_WITHIN: Final = 2.0
"""Seconds to wait for the node, if the URL does not say."""
_SPARE_FOR: Final = 1.0
"""Seconds for which a node that does not answer is not asked again.

All questions that wait for it fail in this time, and are asked where the logs are then.
"""
_ASKING: Final[Command] = ("ASKING",)


class NodeLogs:
    """The logs on one node: all commands are sent together.

    :param is_importing: Whether the node is still getting the logs from another one. It must be
        told then, before each command, that the other node has sent us.
    """

    def __init__(self, nodes: ClusterNodes, address: Address, *, is_importing: bool) -> None:
        self._nodes = nodes
        self._address = address
        self._is_importing = is_importing
        self._connection: RedisConnection | None = None
        self._failure: Exception | None = None
        self._failed = 0.0

    def exchange(self, commands: Sequence[Command]) -> list[object]:
        """Return the answers to some commands; an error is an answer, too."""
        if self._failure is not None and monotonic() - self._failed < _SPARE_FOR:
            raise self._failure.with_traceback(None)
        try:
            replies = self._exchange(commands)
        except LOST as error:
            self._failure, self._failed = error, monotonic()
            raise
        self._failure = None
        return replies

    def disconnect(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _exchange(self, commands: Sequence[Command]) -> list[object]:
        if self._connection is not None:
            try:
                return self._send(self._connection, commands)
            except redis.TimeoutError:
                raise
            except LOST:
                # The connection may have been idle for too long.
                self.disconnect()
        self._connection = self._open()
        return self._send(self._connection, commands)

    def _open(self) -> RedisConnection:
        timeout = self._nodes.options.get("socket_timeout") or _ANSWER_WITHIN
        return open_connection(self._nodes.client(self._address), timeout)

    def _send(self, connection: RedisConnection, commands: Sequence[Command]) -> list[object]:
        sent: Iterable[Command] = commands
        if self._is_importing:
            sent = chain.from_iterable(zip(repeat(_ASKING), commands, strict=False))
        connection.send_packed_command(connection.pack_commands(sent), check_health=False)
        if not self._is_importing:
            return [read_reply(connection) for _ in commands]
        return [(read_reply(connection), read_reply(connection))[1] for _ in commands]
