"""One Pub/Sub connection to Redis, which never reconnects by itself.

redis-py's own ``PubSub`` reconnects and says nothing: at a ``CLIENT KILL TYPE pubsub``
twenty events were lost, and a second reply to SUBSCRIBE was the only sign. This
speaks through redis-py's connection instead, and every loss is an exception, after
which the object is of no more use.

Everything but `Waker.set` is for the one owner of the connection.
"""

import contextlib
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol, Self, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

LOST: Final = (redis.RedisError, OSError)
"""What a connection raises that is lost, or can't be had."""

_CONNECT_TIMEOUT: Final = 5.0
_READ_TIMEOUT: Final = 5.0
_POLL_INTERVAL: Final = 0.02
_COST_OF_AN_EVENT: Final = 64


class Published(NamedTuple):
    """An event that was published to a channel."""

    channel: bytes
    payload: bytes


class Subscribed(NamedTuple):
    """Redis has confirmed the latest SUBSCRIBE to a channel."""

    channel: bytes


class Refused(NamedTuple):
    """Redis does not let us subscribe to a channel."""

    channel: bytes
    error: redis.ResponseError


Arrival = Published | Subscribed | Refused


class _Connection(Protocol):
    """What is used of redis-py's connections, with the types that they lack."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def can_read(self, timeout: float) -> bool: ...
    def read_response(self) -> list[Any] | bytes: ...
    def pack_commands(self, commands: Iterable[tuple[str | bytes, ...]]) -> list[bytes]: ...
    def send_packed_command(self, command: list[bytes], *, check_health: bool) -> None: ...


class Waker:
    """Ends the wait of the connection's owner, from any thread."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._receiver, selectors.EVENT_READ)
        self.is_set = False

    def fileno(self) -> int:
        """Return the descriptor that can be read after `set`."""
        return self._receiver.fileno()

    def set(self) -> None:
        """End the owner's wait, or its next one."""
        if not self.is_set:
            self.is_set = True
            self._sender.send(b"\0")

    def clear(self) -> None:
        """Wait again from now on."""
        with contextlib.suppress(BlockingIOError):
            self._receiver.recv(64)
        self.is_set = False

    def wait(self, timeout: float) -> None:
        """Wait *timeout* seconds at most for `set`."""
        if self._selector.select(timeout):
            self.clear()

    def close(self) -> None:
        """Give the descriptors back."""
        # In this order: a selector must not know of a descriptor that is closed.
        self._selector.close()
        self._receiver.close()
        self._sender.close()


class PubSubConnection:
    """A connection to the Redis of a client, outside of that client's pool.

    :param client: Says where Redis is and how to log in.
    :param waker: Ends a `wait`.
    :param ping_after: Seconds of silence after which Redis is asked for a PONG.
    :param answer_within: Seconds that Redis has for any answer. redis-py's own
        health check sends PING, but never looks whether a PONG comes.
    :raises redis.RedisError: if there is no connection to be had.
    """

    def __init__(
        self,
        client: redis.Redis,
        waker: Waker,
        *,
        ping_after: float = 10.0,
        answer_within: float = 5.0,
    ) -> None:
        self._waker = waker
        self._ping_after = ping_after
        self._answer_within = answer_within
        # The channels of the commands that wait for their answer; answers keep the order.
        self._asked: deque[bytes | None] = deque()
        self._unconfirmed: Counter[bytes] = Counter()
        self.channels: set[bytes] = set()
        self._connection = _connect(client)
        self._heard = time.monotonic()
        self._answer_due: float | None = None
        self._has_more = False
        # redis-py has no public name for the socket, from 5.0 to 8.1. What is no
        # socket, as fakeredis's, can't be selected and is polled.
        sock = getattr(self._connection, "_sock", None)
        self._selector: selectors.BaseSelector | None = None
        if isinstance(sock, socket.socket):
            self._selector = selectors.DefaultSelector()
            self._selector.register(sock, selectors.EVENT_READ)
            self._selector.register(waker, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect; Redis forgets every subscription."""
        if self._selector is not None:
            self._selector.close()
        self._connection.disconnect()

    def is_confirmed(self, channel: bytes) -> bool:
        """Whether Redis has confirmed that it sends this channel's events."""
        return channel in self.channels and channel not in self._unconfirmed

    def subscribe(self, channels: Collection[bytes]) -> None:
        """Send SUBSCRIBE; `read` tells when Redis has confirmed it, or refuses."""
        self.channels.update(channels)
        self._unconfirmed.update(channels)
        self._send("SUBSCRIBE", channels)

    def unsubscribe(self, channels: Collection[bytes]) -> None:
        """Send UNSUBSCRIBE."""
        self.channels.difference_update(channels)
        self._send("UNSUBSCRIBE", channels)

    def wait(self, timeout: float) -> None:
        """Wait *timeout* seconds at most for Redis or the waker."""
        if self._has_more:
            # It may be in redis-py's buffer, of which no selector knows.
            time.sleep(0)
        elif self._selector is None:
            self._poll(timeout)
        else:
            for key, _ in self._selector.select(timeout):
                if key.fileobj is self._waker:
                    self._waker.clear()

    def read(self, limit: int) -> Iterator[Arrival]:
        """Yield what Redis has sent, without waiting for more.

        :param limit: Bytes after which the rest is left for the next time.
        """
        size = 0
        self._has_more = True
        while size < limit:
            if not self._connection.can_read(timeout=0):
                self._has_more = False
                return
            arrival = self._next()
            if isinstance(arrival, Published):
                # An empty event has its cost too.
                size += len(arrival.payload) + len(arrival.channel) + _COST_OF_AN_EVENT
            if arrival is not None:
                yield arrival

    def check(self) -> None:
        """Make sure that Redis is still there; to be called from time to time.

        :raises redis.TimeoutError: if Redis owes an answer for too long.
        """
        now = time.monotonic()
        if self._answer_due is not None:
            if now > self._answer_due:
                raise redis.TimeoutError(f"no answer within {self._answer_within} s")
        elif now - self._heard > self._ping_after:
            self._asked.append(None)
            self._send_packed([("PING",)])

    def _send(self, command: str, channels: Collection[bytes]) -> None:
        # A command for each channel, in one packet: Redis refuses a command as a whole.
        self._asked.extend(channels)
        self._send_packed((command, channel) for channel in channels)

    def _send_packed(self, commands: Iterable[tuple[str | bytes, ...]]) -> None:
        packed = self._connection.pack_commands(commands)
        self._connection.send_packed_command(packed, check_health=False)
        if self._answer_due is None:
            self._answer_due = time.monotonic() + self._answer_within

    def _next(self) -> Arrival | None:
        answer: list[Any] | bytes | redis.ResponseError
        try:
            answer = self._connection.read_response()
        except redis.ResponseError as error:
            answer = error
        self._heard = time.monotonic()
        self._answer_due = None
        if isinstance(answer, list) and answer[0] == b"message":
            return Published(answer[1], answer[2])
        channel = self._asked.popleft() if self._asked else None
        if isinstance(answer, redis.ResponseError):
            return self._note_refusal(channel, answer)
        # Of several SUBSCRIBE that are under way, the last one is the one in force.
        if isinstance(answer, list) and answer[0] == b"subscribe" and self._is_last(answer[1]):
            return Subscribed(answer[1])
        return None

    def _note_refusal(self, channel: bytes | None, error: redis.ResponseError) -> Refused:
        if channel is None:
            raise error
        self.channels.discard(channel)
        self._is_last(channel)
        return Refused(channel, error)

    def _is_last(self, channel: bytes) -> bool:
        """Count an answer to SUBSCRIBE; return whether no other is awaited."""
        self._unconfirmed[channel] -= 1
        if self._unconfirmed[channel] > 0:
            return False
        del self._unconfirmed[channel]
        return True

    def _poll(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._waker.is_set and time.monotonic() < deadline:
            if self._connection.can_read(timeout=_POLL_INTERVAL):
                return
        if self._waker.is_set:
            self._waker.clear()


def _connect(client: redis.Redis) -> _Connection:
    pool = client.connection_pool
    kwargs = {
        key: value
        for key, value in pool.connection_kwargs.items()
        # What belongs to the pool's own connections (redis-py 7 and later).
        if not key.startswith(("maint", "oss_cluster_maint", "orig_"))
    }
    kwargs.setdefault("socket_connect_timeout", _CONNECT_TIMEOUT)
    kwargs.update(
        # A message that trickles in more slowly than this would be lost silently.
        socket_timeout=_READ_TIMEOUT,
        decode_responses=False,
        health_check_interval=0,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        retry_on_timeout=False,
    )
    connection = cast("_Connection", pool.connection_class(**kwargs))
    connection.connect()
    return connection
