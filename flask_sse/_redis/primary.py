"""Publishes on a primary, and notices when it has become a replica.

After a failover, a managed Redis often keeps its name, and connections to the old primary stay
open. Redis accepts PUBLISH on a replica too, but only the clients that are connected to that
replica receive the event. So each PUBLISH is sent together with a question for the role, which
costs no additional system call. The client can be shared between threads.
"""

import logging
import threading
from typing import Any, Final, NamedTuple

import redis
from redis.exceptions import MasterDownError

from flask_sse._redis.pool import CheckedPool
from flask_sse._system.clock import monotonic

_log: Final = logging.getLogger("flask_sse")

# On a primary, this answers at once; on a replica, it is an error. It adds 3 us to a PUBLISH,
# and the other 11 us, because the answer is long. But everybody who may connect may ask that one.
_WAIT: Final = b"*3\r\n$4\r\nWAIT\r\n$1\r\n0\r\n$1\r\n0\r\n"
_HELLO: Final = b"*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n"
_ATTEMPTS: Final = 4
"""How often an event may be sent, if other threads look for the primary at the same time."""
_IS_REPLICA: Final = "WAIT cannot be used"
_PUBLISHING: Final = ("PUBLISH", "SPUBLISH")

_SEARCH_FOR: Final = 60.0
"""Seconds for which a primary is looked for often."""
_SEARCH_EVERY: Final = 0.05
"""Seconds between two searches then. A search for each event used up the ports of a host."""
_SEARCH_LATER: Final = 1.0
"""Seconds between two searches where there has been no primary for longer, or never."""


class Answer(NamedTuple):
    """The answer to PUBLISH or SPUBLISH."""

    number: int
    """How many connections are subscribed to the channel."""
    is_replica: bool
    """Whether a replica has answered."""


class RoleClient(redis.StrictRedis):
    """A client whose answers to publishing say whether the Redis is a replica.

    Other commands are executed as usual.
    """

    def __init__(self, pool: CheckedPool) -> None:
        super().__init__(connection_pool=pool)  # pyright: ignore[reportUnknownMemberType] - untyped
        self._question: bytes | None = _WAIT

    def publish_once(self, command: str, channel: Any, message: Any) -> Answer:
        """Publish an event with PUBLISH or SPUBLISH.

        :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
        """
        # Tools that watch redis-py replace this method.
        untyped: Any = self
        answer: Answer = untyped.execute_command(command, channel, message)
        return answer

    # redis-py calls this for each command.
    def _send_command_parse_response(
        self, conn: Any, command_name: str, *args: Any, **options: Any
    ) -> Any:
        question = self._question
        is_publishing = command_name in _PUBLISHING
        if not is_publishing or question is None:
            untyped: Any = super()
            answer = untyped._send_command_parse_response(conn, command_name, *args, **options)
            return Answer(answer, is_replica=False) if is_publishing else answer
        packed = conn.pack_command(*args)
        packed[0] = question + packed[0]
        conn.send_packed_command(packed, check_health=False)
        is_replica = _read_role(conn)
        number: int = conn.read_response()
        if is_replica is None:
            # Redis answers, but not to this question.
            self._question = _HELLO if question is _WAIT else None
        return Answer(number, bool(is_replica))


class PublishingClient(RoleClient):
    """A client whose ``publish`` connects again if Redis has become a replica."""

    def __init__(self, pool: CheckedPool) -> None:
        super().__init__(pool)
        self._pool = pool
        self._was_primary = False
        self._replica_since: float | None = None
        self._next_search = 0.0
        # While it is held, the garbage collector may close a generator that publishes something.
        self._lock = threading.RLock()

    @property
    def is_on_replica(self) -> bool:
        """Whether the last event was published on a replica."""
        return self._replica_since is not None

    @property
    def moves(self) -> int:
        """How often the client has connected again because of a replica."""
        return self._pool.generation

    def publish(self, channel: Any, message: Any, **kwargs: Any) -> int:
        """Publish an event; return how many connections are subscribed to the channel.

        If a replica has received it, it is sent again only if nobody was subscribed there:
        nobody gets an event twice.

        :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
        """
        attempts = 0
        while True:
            attempts += 1
            generation = self._pool.generation
            published = self._publish_once(channel, message)
            has_looked = published.is_replica and self._look_for_primary(generation)
            if published.number or not has_looked or attempts == _ATTEMPTS:
                return published.number

    def _publish_once(self, channel: Any, message: Any) -> Answer:
        published = self.publish_once("PUBLISH", channel, message)
        if not published.is_replica:
            self._was_primary = True
            self._replica_since = None
            self._next_search = 0.0
        return published

    def _look_for_primary(self, generation: int) -> bool:
        """Make the pool connect again; return whether it has done so since *generation*."""
        with self._lock:
            if generation == self._pool.generation and self._may_search():
                self._pool.renew()
            return generation != self._pool.generation

    def _may_search(self) -> bool:
        now = monotonic()
        # Another thread may find the primary, and forget it, at any time.
        since = self._replica_since
        if since is None:
            since = self._replica_since = now
            _log.warning(
                "the Redis that publishes the events is a replica, so they reach only the streams "
                "that are connected to the same replica; REDIS_URL must lead to the primary, which "
                "is looked for on new connections"
            )
        if now < self._next_search:
            return False
        # If it is for ever, perhaps all processes use this replica.
        is_new = self._was_primary and now - since <= _SEARCH_FOR
        self._next_search = now + (_SEARCH_EVERY if is_new else _SEARCH_LATER)
        return True


def _read_role(conn: Any) -> bool | None:
    """Read the answer to a question; return whether it is a replica, or `None` if refused."""
    try:
        answer: Any = conn.read_response()
    except MasterDownError:
        return True
    except redis.ResponseError as error:
        return True if _IS_REPLICA in str(error) else None
    if isinstance(answer, int):
        return False
    return dict(zip(answer[::2], answer[1::2], strict=False)).get(b"role") != b"master"
