"""The way of one command to the node of a cluster that has its channel.

It can be called from any thread. It blocks while the cluster is looked at.
"""

from typing import Any

import redis

from flask_sse._redis.cluster.errors import (
    LOST,
    NotConnectedError,
    Redirection,
    is_passing,
)
from flask_sse._redis.cluster.router import Router
from flask_sse._redis.primary import RoleClient
from flask_sse._redis.url import Address


class Route:
    """The way to the node of a channel, through a router."""

    def __init__(self, router: Router, channel: bytes) -> None:
        self._router = router
        self._channel = channel
        self._asked: Address | None = None
        self._redirection: Redirection | None = None

    @property
    def asked(self) -> Address | None:
        """The node that was asked last."""
        return self._asked

    def executor(self) -> "RoleClient | _Asking":
        """Return a client for the node that has the channel, or that an error has named."""
        redirection, self._redirection, self._asked = self._redirection, None, None
        self._asked = (
            self._router.address_of(self._channel) if redirection is None else redirection.address
        )
        client = self._router.client_at(self._asked)
        return _Asking(client) if redirection is not None and redirection.is_ask else client

    def follow(self, redirection: Redirection) -> None:
        """Go to the node that another one has named."""
        self._redirection = redirection

    def note(self, error: redis.RedisError) -> bool:
        """Learn from an error; return whether it names a node that can be asked at once."""
        if self._asked is not None:
            self._redirection = Redirection.of(error, self._asked)
        if self._redirection is not None:
            self._router.note(self._redirection)
            return True
        if is_passing(error):
            self._router.expire(self._asked if isinstance(error, LOST) else None)
        return False

    def finds_another(self, error: redis.RedisError) -> bool:
        """Look for the channel's node if the one that was asked can't have done anything.

        It follows :meth:`note`, and may block.

        :raises redis.RedisError: if no node has the channel.
        """
        return (
            isinstance(error, NotConnectedError)
            and self._asked is not None
            and self._router.address_of(self._channel) != self._asked
        )

    def note_replica(self) -> None:
        """Note that the node has become a replica."""
        self._router.expire()


class _Asking:
    """Executes commands about a slot that a node is getting from another one."""

    def __init__(self, client: RoleClient) -> None:
        self._client = client

    def execute_command(self, *command: Any, **options: Any) -> Any:
        """Send ASKING, which allows one command on the same connection, and the command."""
        untyped: Any = self._client
        with untyped.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("ASKING")
            pipeline.execute_command(*command, **options)
            _, answer = pipeline.execute(raise_on_error=False)
        if isinstance(answer, Exception):
            raise answer
        return answer
