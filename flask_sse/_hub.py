"""The one subscription of a process to a Redis, and the fan-out from it.

`Hub.join` and `Hub.leave` may be called from any thread and do not block: each leaves
a request. All else is done by the hub's owner, a thread (a greenlet where gevent has
patched), which starts with a request and ends when there has been nobody to serve for
a while. It never blocks on a client.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from flask.json.provider import JSONProvider
from redis.backoff import FullJitterBackoff

from flask_sse import _gunicorn
from flask_sse._message import encode, from_payload
from flask_sse._pubsub import LOST, Arrival, Published, PubSubConnection, Refused, Waker
from flask_sse._subscriber import Batch, Subscriber

_log: Final = logging.getLogger("flask_sse")

CONFIRM_WITHIN: Final = 4.0
"""Seconds that a client waits for Redis to confirm its subscription."""

_TICK: Final = 0.5
_READ_LIMIT: Final = 1 << 16
_YIELD_AFTER: Final = 256
# redis-py raises 2 to this power, and overflows beyond 1023.
_MOST_DOUBLINGS: Final = 8


class _Request(NamedTuple):
    channel: bytes
    subscriber: Subscriber
    joins: bool


class Hub:
    """Hands each event of a channel to everybody who has joined that channel.

    :param connect: Makes a connection whose wait the given waker ends; where there
        is none to be had it raises one of :data:`flask_sse._pubsub.LOST`.
    :param provider: The application's JSON provider.
    :param linger: Seconds for which a connection is kept that nobody needs.
    """

    def __init__(
        self,
        connect: Callable[[Waker], PubSubConnection],
        provider: JSONProvider,
        *,
        linger: float = 2.0,
    ) -> None:
        self._connect = connect
        self._provider = provider
        self._linger = linger
        self._outage = Outage()
        self._requests: deque[_Request] = deque()
        # For the owner's start and end alone. It can be taken twice: within it the
        # garbage collector may close a generator of messages, which leaves the hub.
        self._lock = threading.RLock()
        self._waker: Waker | None = None

    def join(self, channel: bytes, subscriber: Subscriber) -> None:
        """Subscribe to *channel*; the subscriber learns when Redis has confirmed it."""
        self._leave_request(_Request(channel, subscriber, joins=True))

    def leave(self, channel: bytes, subscriber: Subscriber) -> None:
        """Give a subscription up, if there still is one."""
        self._leave_request(_Request(channel, subscriber, joins=False))

    def _leave_request(self, request: _Request) -> None:
        with self._lock:
            self._requests.append(request)
            if self._waker is None:
                self._start_owner()
            if self._waker is not None:
                self._waker.set()

    def _start_owner(self) -> None:
        waker = Waker()
        owner = _Owner(
            self._connect,
            self._provider,
            self._linger,
            self._outage,
            self._requests,
            waker=waker,
        )
        thread = threading.Thread(
            target=owner.run, args=[self._retire], name="flask-sse-hub", daemon=True
        )
        if self._waker is not None:
            waker.close()
            return
        self._waker = waker
        try:
            thread.start()
        except RuntimeError:
            self._waker = None
            waker.close()
            raise

    def _retire(self) -> bool:
        """Let the owner end, unless there are requests again."""
        with self._lock:
            if self._requests:
                return False
            waker, self._waker = self._waker, None
        if waker is not None:
            waker.close()
        return True


class Outage:
    """Whether Redis is away; told once an outage, not once a client or an attempt."""

    def __init__(self) -> None:
        self._attempts = 0
        self._backoff = FullJitterBackoff(cap=2.0, base=0.1)

    def goes_on(self, error: Exception) -> float:
        """Note a failure; return for how many seconds to wait."""
        if not self._attempts:
            _log.warning("Redis is away: %s; streams stay open and go on when it is back", error)
        self._attempts += 1
        return self._backoff.compute(min(self._attempts, _MOST_DOUBLINGS))

    def is_over(self) -> None:
        """Note that Redis has answered."""
        if self._attempts:
            _log.warning("Redis is back after %d attempts", self._attempts)
            self._attempts = 0


class _Channel:
    """Who listens to a channel."""

    __slots__ = ("subscribers", "waiting")

    def __init__(self) -> None:
        # A dictionary keeps the order in which they came, and so did their sockets: at
        # 10,000 clients that order is kinder to the processor's caches than a set's.
        self.subscribers: dict[Subscriber, None] = {}
        self.waiting: dict[Subscriber, None] = {}

    def confirm(self) -> None:
        """Let in who has waited for the subscription's confirmation."""
        waiting, self.waiting = self.waiting, {}
        for subscriber in waiting:
            subscriber.confirm()
        self.subscribers.update(waiting)

    def discard(self, subscriber: Subscriber) -> None:
        """Forget a subscriber, if it is known."""
        self.subscribers.pop(subscriber, None)
        self.waiting.pop(subscriber, None)

    def end(self, error: Exception | None = None) -> None:
        """End every subscription."""
        for subscriber in (*self.subscribers, *self.waiting):
            subscriber.error = error
            subscriber.end()

    def __bool__(self) -> bool:
        return bool(self.subscribers or self.waiting)


class _Owner:
    """Owns the connection to Redis; alone knows who listens to what."""

    def __init__(
        self,
        connect: Callable[[Waker], PubSubConnection],
        provider: JSONProvider,
        linger: float,
        outage: Outage,
        requests: deque[_Request],
        *,
        waker: Waker,
    ) -> None:
        self._connect = connect
        self._provider = provider
        self._linger = linger
        self._outage = outage
        self._requests = requests
        self._waker = waker
        self._channels: dict[bytes, _Channel] = {}
        # The channels whose subscription may not be what is wanted.
        self._concerned: set[bytes] = set()
        self._connection: PubSubConnection | None = None
        self._idle_since: float | None = None
        self._dropped = 0
        self._offers = 0
        self._stopping = False

    def run(self, retire: Callable[[], bool]) -> None:
        """Serve as long as there is somebody to serve."""
        while True:
            try:
                while self._has_channels() or not retire():
                    self._serve_or_pause()
            except Exception:  # noqa: BLE001 - whatever it is, the streams keep an owner
                _log.exception("the event hub has failed and starts again")
                time.sleep(_TICK)
            else:
                return

    def _has_channels(self) -> bool:
        self._obey()
        return bool(self._channels)

    def _serve_or_pause(self) -> None:
        if not self._has_channels():
            return
        try:
            with self._connect(self._waker) as self._connection:
                self._serve(self._connection)
        except LOST as error:
            pause = self._outage.goes_on(error)
        else:
            return
        finally:
            # It is closed, and confirms nothing any more.
            self._connection = None
        self._pause(pause)

    def _serve(self, connection: PubSubConnection) -> None:
        self._concerned.update(self._channels)
        self._align(connection)
        while not self._is_idle():
            connection.wait(_TICK)
            self._obey()
            self._dispatch(connection.read(_READ_LIMIT))
            self._align(connection)
            connection.check()
            self._heed_server()

    def _is_idle(self) -> bool:
        if self._channels:
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        return self._stopping or time.monotonic() - self._idle_since >= self._linger

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; requests are heard all the same."""
        until = time.monotonic() + seconds
        while self._channels and (left := until - time.monotonic()) > 0:
            self._waker.wait(min(left, _TICK))
            self._obey()
            self._heed_server()

    def _obey(self) -> None:
        """Do what has been requested."""
        while self._requests:
            request = self._requests.popleft()
            if request.joins:
                self._add(request.channel, request.subscriber)
            else:
                self._remove(request.channel, request.subscriber)

    def _add(self, name: bytes, subscriber: Subscriber) -> None:
        if self._stopping:
            subscriber.end()
            return
        self._concerned.add(name)
        channel = self._channels.setdefault(name, _Channel())
        channel.waiting[subscriber] = None
        if self._connection is not None and self._connection.is_confirmed(name):
            channel.confirm()

    def _remove(self, name: bytes, subscriber: Subscriber) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        channel.discard(subscriber)
        if not channel:
            self._concerned.add(name)
            del self._channels[name]

    def _align(self, connection: PubSubConnection) -> None:
        """Subscribe to what is wanted, and to nothing else."""
        if not self._concerned:
            return
        concerned, self._concerned = self._concerned, set()
        missing = [
            name for name in concerned if name in self._channels and name not in connection.channels
        ]
        surplus = [
            name for name in concerned if name not in self._channels and name in connection.channels
        ]
        if missing:
            connection.subscribe(missing)
        if surplus:
            connection.unsubscribe(surplus)

    def _dispatch(self, arrivals: Iterable[Arrival]) -> None:
        # All that has come for a channel is written at once: one system call a
        # client carries many events.
        payloads: dict[bytes, list[bytes]] = {}
        for arrival in arrivals:
            name = arrival.channel
            if isinstance(arrival, Refused):
                self._refuse(name, arrival.error)
            elif name not in self._channels:
                continue
            elif isinstance(arrival, Published):
                payloads.setdefault(name, []).append(arrival.payload)
            else:
                self._outage.is_over()
                # What was sent for an earlier subscription is not for those who have
                # waited for this one: there is a hole in between.
                self._fan_out(name, payloads.pop(name, []))
                self._channels[name].confirm()
        for name, some in payloads.items():
            self._fan_out(name, some)

    def _fan_out(self, name: bytes, payloads: Sequence[bytes]) -> None:
        channel = self._channels.get(name)
        if channel is None or not channel.subscribers or not payloads:
            return
        batch = self._to_batch(name, payloads)
        if not batch.frames:
            return
        cut_off: list[Subscriber] = []
        for subscriber in channel.subscribers:
            if not subscriber.offer(batch):
                cut_off.append(subscriber)
            self._offers += 1
            if self._offers % _YIELD_AFTER == 0:
                time.sleep(0)
        for subscriber in cut_off:
            _log.warning(
                "a client of channel %s is cut off: more than SSE_MAX_PENDING bytes waited for it",
                _shown(name),
            )
            self._remove(name, subscriber)

    def _to_batch(self, name: bytes, payloads: Iterable[bytes]) -> Batch:
        sound: list[bytes] = []
        frames: list[bytes] = []
        for payload in payloads:
            try:
                frames.append(encode(from_payload(payload, self._provider), self._provider))
            except Exception as error:  # noqa: BLE001 - a JSON provider may raise anything
                self._note_dropped("malformed event", name, error)
            else:
                sound.append(payload)
        return Batch(sound, b"".join(frames))

    def _refuse(self, name: bytes, error: Exception) -> None:
        """End the subscriptions to a channel that Redis forbids, and no others."""
        self._note_dropped("subscription", name, error)
        channel = self._channels.pop(name, None)
        if channel is not None:
            channel.end(error)

    def _heed_server(self) -> None:
        """End all subscriptions once the server has been told to stop."""
        if self._stopping or not _gunicorn.is_stopping():
            return
        self._stopping = True
        self._concerned.update(self._channels)
        for channel in self._channels.values():
            channel.end()
        self._channels.clear()

    def _note_dropped(self, what: str, name: bytes, error: Exception) -> None:
        # Whoever publishes rubbish, or asks for what is forbidden, could fill the log: the
        # first is told, and then every one whose number is a power of two.
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:
            text = "dropped %s number %d, on channel %s: %.200s"
            _log.warning(text, what, self._dropped, _shown(name), error)


def _shown(name: bytes) -> str:
    """Return a channel's name as the log shows it."""
    return repr(name[:100].decode(errors="replace"))
