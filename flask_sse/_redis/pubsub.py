"""One Pub/Sub connection to Redis, which never reconnects by itself.

redis-py's own ``PubSub`` reconnects silently: after a ``CLIENT KILL TYPE pubsub``, twenty
events were lost, and a second reply to SUBSCRIBE was the only sign. Here, redis-py only
connects and logs in; this module then sends and reads by itself. Every loss raises an
exception, after which the object can no longer be used.

Once the connection has been made, only the hub's loop uses it, except for `interrupt` and
`is_complete`.
"""

import contextlib
import os
import socket
import ssl
from collections import Counter, deque
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple, Protocol, cast

import redis

from flask_sse._redis.options import TIMEOUT, own_options
from flask_sse._redis.resp import Reader, Reply
from flask_sse._system import forks
from flask_sse._system.clock import monotonic

LOST: Final = (redis.RedisError, OSError, UnicodeError)
"""The exceptions of a connection that is lost or fails, including an invalid host name."""

_COST_OF_AN_EVENT: Final = 64
_RECEIVE_AT_ONCE: Final = 1 << 16
_MOST_AT_ONCE: Final = 1000
_MOVED: Final = "MOVED: this node of the cluster no longer has the channel"
_EVENTS: Final = (b"message", b"smessage")
_ANSWERS: Final = (b"subscribe", b"unsubscribe", b"ssubscribe", b"sunsubscribe")
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Delivered(NamedTuple):
    """An event that Redis has sent for a channel."""

    channel: bytes
    payload: bytes


class Subscribed(NamedTuple):
    """Redis has confirmed the latest SUBSCRIBE to a channel."""

    channel: bytes


class Refused(NamedTuple):
    """Redis does not allow a subscription to a channel, or has ended it."""

    channel: bytes
    error: redis.ResponseError


Arrival = Delivered | Subscribed | Refused


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
    must_be_polled: bool
    """Whether a poller can't tell when data can be sent or received."""

    def send(self, data: list[bytes]) -> None:
        """Send data, and keep the part that Redis does not accept for the next :meth:`receive`."""

    def receive(self) -> list[Reply]:
        """Return the replies that have arrived, or the first ones of very many."""
        ...


class _SocketTransport:
    """Reads and writes the socket that redis-py has opened and logged in with."""

    def __init__(self, sock: socket.socket) -> None:
        self.has_more = False
        self.must_be_polled = False
        self._socket = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._reader = Reader()
        self._unsent = b""
        sock.setblocking(False)

    def send(self, data: list[bytes]) -> None:
        self._unsent += b"".join(data)
        self._send_rest()

    def receive(self) -> list[Reply]:
        if self._unsent:
            self._send_rest()
        try:
            data = self._socket.recv(_RECEIVE_AT_ONCE)
        except _NOT_NOW:
            self.has_more = False
            return []
        if not data:
            raise redis.ConnectionError("Redis has closed the connection")
        # The poller does not see what TLS has decrypted.
        while self._tls is not None and len(data) < _RECEIVE_AT_ONCE and self._tls.pending():
            data += self._tls.recv(self._tls.pending())
        self.has_more = len(data) >= _RECEIVE_AT_ONCE
        return self._reader.feed(data)

    def _send_rest(self) -> None:
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except _NOT_NOW:
                break
            self._unsent = self._unsent[sent:]
        self.must_be_polled = bool(self._unsent)


class _PolledTransport:
    """Uses redis-py for connections without a socket, such as those of fakeredis."""

    def __init__(self, connection: RedisConnection) -> None:
        self.has_more = False
        self.must_be_polled = True
        self._connection = connection

    def send(self, data: list[bytes]) -> None:
        self._connection.send_packed_command(data, check_health=False)

    def receive(self) -> list[Reply]:
        replies: list[Reply] = []
        while len(replies) < _MOST_AT_ONCE:
            self.has_more = self._connection.can_read(timeout=0)
            if not self.has_more:
                break
            try:
                replies.append(self._connection.read_response())
            except redis.ResponseError as error:
                replies.append(error)
        return replies


class PubSubConnection:
    """A connection to the Redis of a client, outside that client's pool.

    The constructor blocks until Redis has answered.

    :param client: Says where Redis is and how to log in.
    :param ping_after: Seconds of silence after which a PING is sent.
    :param answer_within: The timeout for any answer, in seconds. redis-py's own
        health check sends PING, but never checks whether a PONG arrives.
    :param sharded: Whether it uses the commands for one node of a cluster.
    :raises redis.RedisError: if the connection fails.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        ping_after: float = 10.0,
        answer_within: float = 5.0,
        sharded: bool = False,
    ) -> None:
        prefix = "S" if sharded else ""
        self._subscribe, self._unsubscribe = f"{prefix}SUBSCRIBE", f"{prefix}UNSUBSCRIBE"
        self._ping_after = ping_after
        self._answer_within = answer_within
        # Commands that wait for their answers, which arrive in the same order.
        self._asked: deque[_Command] = deque()
        self._unconfirmed: Counter[bytes] = Counter()
        self.channels: set[bytes] = set()
        self._connection = open_connection(client)
        self._heard = monotonic()
        self._answer_due: float | None = None
        # What has been received and not returned yet.
        self._left: list[Reply] = []
        self._failure: Exception | None = None
        self.socket: socket.socket | None = _socket_of(self._connection)
        """The socket to wait for; `None` with fakeredis, which has no socket."""
        if self.socket is not None:
            forks.close_in_children(self.socket)
        self._transport: _Transport = (
            _PolledTransport(self._connection)
            if self.socket is None
            else _SocketTransport(self.socket)
        )

    @property
    def has_more(self) -> bool:
        """Whether `read` has left data that a poller may not see."""
        return bool(self._left) or self._failure is not None or self._transport.has_more

    @property
    def must_be_polled(self) -> bool:
        """Whether a poller can't tell when data can be sent or received."""
        return self._transport.must_be_polled

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to do until a poller sees something."""
        transport = self._transport
        return not (self._left or self._failure or transport.has_more or transport.must_be_polled)

    @property
    def is_complete(self) -> bool:
        """Whether Redis has confirmed all subscriptions, and there are some."""
        return bool(self.channels) and not self._unconfirmed

    def interrupt(self) -> None:
        """Make :meth:`read` notice a loss, from any thread."""
        interrupt(self._connection)

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
        self._send(self._subscribe, channels)

    def unsubscribe(self, channels: Collection[bytes]) -> None:
        """Send UNSUBSCRIBE."""
        self.channels.difference_update(channels)
        self._send(self._unsubscribe, channels)

    def read(self, limit: int) -> list[Arrival]:
        """Return what Redis has sent, without waiting for more.

        If the connection is lost, everything that arrived before is returned first.

        :param limit: Bytes after which the rest is left for the next call.
        """
        if self._failure is not None:
            raise self._failure
        replies = self._left or self._transport.receive()
        self._left = []
        if not replies:
            return []
        self._heard = monotonic()
        self._answer_due = None
        arrivals: list[Arrival] = []
        size = 0
        for number, reply in enumerate(replies, 1):
            try:
                arrival = self._understand(reply)
            except LOST as error:
                self._failure = error
                break
            if arrival is not None:
                arrivals.append(arrival)
            if isinstance(arrival, Delivered):
                # An empty event has a cost too.
                size += len(arrival.payload) + len(arrival.channel) + _COST_OF_AN_EVENT
                if size >= limit:
                    self._left = replies[number:]
                    break
        return arrivals

    def check(self) -> None:
        """Make sure that Redis is still there; must be called from time to time.

        :raises redis.TimeoutError: if an answer is overdue.
        """
        now = monotonic()
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
            self._answer_due = monotonic() + self._answer_within

    def _understand(self, reply: Reply) -> Arrival | None:
        if isinstance(reply, list) and len(reply) == 3 and reply[0] in _EVENTS:
            _, name, payload = cast("list[bytes]", reply)
            return Delivered(name, payload)
        match reply:
            case [b"sunsubscribe", bytes(channel), _] if not self._is_next(reply):
                return self._withdraw(channel)
            case redis.InvalidResponse():
                raise reply
            case redis.ResponseError() if not self._asked:
                raise reply
            case _ if not self._asked:
                return None
            case [bytes(kind), bytes(), _] if kind in _ANSWERS and not self._is_next(reply):
                # All answers that follow would be taken for those of other commands.
                raise redis.InvalidResponse(f"this answers no command: {reply!r:.100}")
            case _:
                return self._answer(reply)

    def _is_next(self, reply: list[Reply]) -> bool:
        """Whether a reply answers the command that is next."""
        kind, channel, _ = cast("tuple[bytes, bytes, int]", reply)
        return bool(self._asked) and self._asked[0] == (kind.decode().upper(), channel)

    def _withdraw(self, channel: bytes) -> Refused | None:
        """Note that a node of a cluster has ended a subscription by itself."""
        if not self.is_confirmed(channel):
            # There is an answer to come if it is wanted.
            return None
        self.channels.discard(channel)
        return Refused(channel, redis.ResponseError(_MOVED))

    def _answer(self, reply: Reply) -> Arrival | None:
        name, channel = self._asked.popleft()
        # Any answer to PING proves that Redis is there, even an error that PING is forbidden. A
        # refused UNSUBSCRIBE causes some work for Redis, but no events are lost.
        if name != self._subscribe:
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


def open_connection(client: redis.Redis, timeout: float = TIMEOUT) -> RedisConnection:
    """Return a connection to the Redis of a client, outside that client's pool.

    :param timeout: Seconds to wait for each answer.
    :raises redis.RedisError: if the connection fails.
    """
    pool = client.connection_pool
    # A message that arrives more slowly than the timeout would be lost silently.
    options = own_options(
        pool.connection_kwargs,
        socket_timeout=timeout,
        socket_connect_timeout=None if timeout == TIMEOUT else timeout,
    )
    connection = cast("RedisConnection", pool.connection_class(**options))
    connection.connect()
    return connection


def interrupt(connection: RedisConnection) -> None:
    """Make the user of a connection notice a loss, from any thread."""
    sock = _socket_of(connection)
    with contextlib.suppress(OSError):
        if sock is not None:
            # Another thread uses this object; a copy has the same connection.
            with socket.socket(fileno=os.dup(sock.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)


def _socket_of(connection: RedisConnection) -> socket.socket | None:
    # From 5.0 to 8.1, redis-py has no public name for it.
    sock = getattr(connection, "_sock", None)
    return sock if isinstance(sock, socket.socket) else None
