"""One Pub/Sub connection to Redis, which never reconnects by itself.

redis-py's own ``PubSub`` reconnects silently: after a ``CLIENT KILL TYPE pubsub``, twenty
events were lost, and a second reply to SUBSCRIBE was the only sign. Here, redis-py only
connects and logs in; this module then sends and reads by itself. Every loss raises an
exception, after which the object can no longer be used.

Once the connection has been made, only the hub's owner uses it.
"""

import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple, Protocol, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flask_sse._resp import Reader, Reply

LOST: Final = (redis.RedisError, OSError, UnicodeError)
"""The exceptions of a connection that is lost or fails, including an invalid host name."""

_CONNECT_TIMEOUT: Final = 5.0
_READ_TIMEOUT: Final = 5.0
_COST_OF_AN_EVENT: Final = 64
_RECEIVE_AT_ONCE: Final = 1 << 16
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Published(NamedTuple):
    """An event that was published to a channel."""

    channel: bytes
    payload: bytes


class Subscribed(NamedTuple):
    """Redis has confirmed the latest SUBSCRIBE to a channel."""

    channel: bytes


class Refused(NamedTuple):
    """Redis does not allow a subscription to a channel."""

    channel: bytes
    error: redis.ResponseError


Arrival = Published | Subscribed | Refused


class _Command(NamedTuple):
    """A command that has been sent."""

    name: str
    channel: bytes


class RedisConnection(Protocol):
    """The methods used of redis-py's connections, with the types that they lack."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def can_read(self, timeout: float) -> bool: ...
    def read_response(self) -> Reply: ...
    def pack_commands(self, commands: Iterable[tuple[str | bytes | int, ...]]) -> list[bytes]: ...
    def send_packed_command(self, command: list[bytes], *, check_health: bool) -> None: ...


class _Transport(Protocol):
    """Carries commands and replies. Nothing blocks."""

    has_more: bool
    """Whether :meth:`receive` has left data that a poller may not see."""

    @property
    def must_be_polled(self) -> bool:
        """Whether a poller can't tell when data can be sent or received."""
        ...

    def send(self, data: list[bytes]) -> None:
        """Send data, and keep the part that Redis does not accept for the next :meth:`receive`."""

    def receive(self) -> Iterator[Reply]:
        """Yield the replies that have arrived, until there are no more or the caller stops."""
        ...


class _SocketTransport:
    """Reads and writes the socket that redis-py has opened and logged in with."""

    def __init__(self, sock: socket.socket) -> None:
        self.has_more = False
        self._socket = sock
        # With TLS, read until there is no more decrypted data. Without it, a short read means
        # that there is no more data, and another read would release the GIL for nothing.
        self._short_is_all = not isinstance(sock, ssl.SSLSocket)
        self._reader = Reader()
        self._unsent = b""
        sock.setblocking(False)

    @property
    def must_be_polled(self) -> bool:
        return bool(self._unsent)

    def send(self, data: list[bytes]) -> None:
        self._unsent += b"".join(data)
        self._send_rest()

    def receive(self) -> Iterator[Reply]:
        self._send_rest()
        self.has_more = True
        yield from self._reader.replies()
        is_all = False
        while not is_all:
            try:
                data = self._socket.recv(_RECEIVE_AT_ONCE)
            except _NOT_NOW:
                break
            if not data:
                raise redis.ConnectionError("Redis has closed the connection")
            self._reader.feed(data)
            yield from self._reader.replies()
            is_all = self._short_is_all and len(data) < _RECEIVE_AT_ONCE
        self.has_more = False

    def _send_rest(self) -> None:
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except _NOT_NOW:
                return
            self._unsent = self._unsent[sent:]


class _PolledTransport:
    """Uses redis-py for connections without a socket, such as those of fakeredis."""

    def __init__(self, connection: RedisConnection) -> None:
        self.has_more = False
        self.must_be_polled = True
        self._connection = connection

    def send(self, data: list[bytes]) -> None:
        self._connection.send_packed_command(data, check_health=False)

    def receive(self) -> Iterator[Reply]:
        self.has_more = True
        while self._connection.can_read(timeout=0):
            try:
                reply = self._connection.read_response()
            except redis.ResponseError as error:
                reply = error
            yield reply
        self.has_more = False


class PubSubConnection:
    """A connection to the Redis of a client, outside that client's pool.

    The constructor blocks until Redis has answered.

    :param client: Says where Redis is and how to log in.
    :param ping_after: Seconds of silence after which a PING is sent.
    :param answer_within: The timeout for any answer, in seconds. redis-py's own
        health check sends PING, but never checks whether a PONG arrives.
    :raises redis.RedisError: if the connection fails.
    """

    def __init__(
        self, client: redis.Redis, *, ping_after: float = 10.0, answer_within: float = 5.0
    ) -> None:
        self._ping_after = ping_after
        self._answer_within = answer_within
        # Commands that wait for their answers, which arrive in the same order.
        self._asked: deque[_Command] = deque()
        self._unconfirmed: Counter[bytes] = Counter()
        self.channels: set[bytes] = set()
        self._connection = open_connection(client)
        self._heard = time.monotonic()
        self._answer_due: float | None = None
        # From 5.0 to 8.1, redis-py has no public name for it.
        sock = getattr(self._connection, "_sock", None)
        self.socket: socket.socket | None = sock if isinstance(sock, socket.socket) else None
        """The socket to wait for; `None` with fakeredis, which has no socket."""
        self._transport: _Transport = (
            _PolledTransport(self._connection)
            if self.socket is None
            else _SocketTransport(self.socket)
        )

    @property
    def has_more(self) -> bool:
        """Whether `read` has left data that a poller may not see."""
        return self._transport.has_more

    @property
    def must_be_polled(self) -> bool:
        """Whether a poller can't tell when data can be sent or received."""
        return self._transport.must_be_polled

    def close(self) -> None:
        """Disconnect; Redis forgets every subscription."""
        self._connection.disconnect()

    def is_confirmed(self, channel: bytes) -> bool:
        """Whether Redis has confirmed that it sends this channel's events."""
        return channel in self.channels and channel not in self._unconfirmed

    def subscribe(self, channels: Collection[bytes]) -> None:
        """Send SUBSCRIBE; `read` yields the confirmation or refusal from Redis."""
        self.channels.update(channels)
        self._unconfirmed.update(channels)
        self._send("SUBSCRIBE", channels)

    def unsubscribe(self, channels: Collection[bytes]) -> None:
        """Send UNSUBSCRIBE."""
        self.channels.difference_update(channels)
        self._send("UNSUBSCRIBE", channels)

    def read(self, limit: int) -> Iterator[Arrival]:
        """Yield what Redis has sent, without waiting for more.

        :param limit: Bytes after which the rest is left for the next call.
        """
        size = 0
        for reply in self._transport.receive():
            arrival = self._understand(reply)
            if isinstance(arrival, Published):
                # An empty event has a cost too.
                size += len(arrival.payload) + len(arrival.channel) + _COST_OF_AN_EVENT
            if arrival is not None:
                yield arrival
            if size >= limit:
                return

    def check(self) -> None:
        """Make sure that Redis is still there; must be called from time to time.

        :raises redis.TimeoutError: if an answer is overdue.
        """
        now = time.monotonic()
        if self._answer_due is not None:
            if now > self._answer_due:
                raise redis.TimeoutError(f"no answer within {self._answer_within} s")
        elif now - self._heard > self._ping_after:
            self._asked.append(_Command("PING", b""))
            self._send_packed([("PING",)])

    def _send(self, command: str, channels: Collection[bytes]) -> None:
        # One command per channel, in one packet, because Redis refuses a command as a whole.
        self._asked.extend(_Command(command, channel) for channel in channels)
        self._send_packed((command, channel) for channel in channels)

    def _send_packed(self, commands: Iterable[tuple[str | bytes, ...]]) -> None:
        self._transport.send(self._connection.pack_commands(commands))
        if self._answer_due is None:
            self._answer_due = time.monotonic() + self._answer_within

    def _understand(self, reply: Reply) -> Arrival | None:
        self._heard = time.monotonic()
        self._answer_due = None
        match reply:
            case [b"message", bytes(channel), bytes(payload)]:
                return Published(channel, payload)
            case _:
                pass
        if not self._asked:
            if isinstance(reply, redis.ResponseError):
                raise reply
            return None
        name, channel = self._asked.popleft()
        # Any answer to PING proves that Redis is there, even an error that PING is forbidden. A
        # refused UNSUBSCRIBE causes some work for Redis, but no events are lost.
        if name != "SUBSCRIBE":
            return None
        is_last = self._is_last(channel)
        if isinstance(reply, redis.ResponseError):
            self.channels.discard(channel)
            return Refused(channel, reply)
        # If several SUBSCRIBE commands are in progress, the last one counts.
        return Subscribed(channel) if is_last else None

    def _is_last(self, channel: bytes) -> bool:
        """Count an answer to SUBSCRIBE; return whether it is the last one expected."""
        self._unconfirmed[channel] -= 1
        if self._unconfirmed[channel] > 0:
            return False
        del self._unconfirmed[channel]
        return True


def open_connection(client: redis.Redis) -> RedisConnection:
    """Return a connection to the Redis of a client, outside that client's pool.

    :raises redis.RedisError: if the connection fails.
    """
    pool = client.connection_pool
    kwargs = {
        key: value
        for key, value in pool.connection_kwargs.items()
        # These options belong to the pool's own connections (redis-py 7 and later).
        if not key.startswith(("maint", "oss_cluster_maint", "orig_"))
    }
    kwargs.setdefault("socket_connect_timeout", _CONNECT_TIMEOUT)
    kwargs.update(
        # A message that arrives more slowly than this would be lost silently.
        socket_timeout=_READ_TIMEOUT,
        decode_responses=False,
        health_check_interval=0,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        retry_on_timeout=False,
    )
    connection = cast("RedisConnection", pool.connection_class(**kwargs))
    connection.connect()
    return connection
