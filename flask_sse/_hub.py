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

from flask_sse import _server
from flask_sse._message import encode, from_payload
from flask_sse._pubsub import LOST, Published, PubSubConnection, Subscribed, Waker
from flask_sse._subscriber import Batch, Subscriber

_log: Final = logging.getLogger("flask_sse")

_TICK: Final = 0.5
_READ_LIMIT: Final = 1 << 18
_YIELD_AFTER: Final = 256


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
        self.connect = connect
        self.provider = provider
        self.linger = linger
        self.requests: deque[_Request] = deque()
        self._lock = threading.Lock()
        self._waker: Waker | None = None

    def join(self, channel: bytes, subscriber: Subscriber) -> None:
        """Subscribe to *channel*; the subscriber learns when Redis has confirmed it."""
        self._leave_request(_Request(channel, subscriber, joins=True))

    def leave(self, channel: bytes, subscriber: Subscriber) -> None:
        """Give a subscription up, if there still is one."""
        self._leave_request(_Request(channel, subscriber, joins=False))

    def _leave_request(self, request: _Request) -> None:
        # The lock is for the owner's start and end alone.
        with self._lock:
            self.requests.append(request)
            if self._waker is None:
                self._waker = Waker()
                owner = _Owner(self, self._waker)
                threading.Thread(target=owner.run, name="flask-sse-hub", daemon=True).start()
            self._waker.set()

    def retire(self, waker: Waker) -> bool:
        """Tell that the owner ends, unless there are requests again."""
        with self._lock:
            if self.requests:
                return False
            self._waker = None
        waker.close()
        return True


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

    def end(self) -> None:
        """End every stream."""
        for subscriber in (*self.subscribers, *self.waiting):
            subscriber.end()

    def __bool__(self) -> bool:
        return bool(self.subscribers or self.waiting)


class _Owner:
    """Owns the connection to Redis; alone knows who listens to what."""

    def __init__(self, hub: Hub, waker: Waker) -> None:
        self._hub = hub
        self._waker = waker
        self._channels: dict[bytes, _Channel] = {}
        self._connection: PubSubConnection | None = None
        self._backoff = FullJitterBackoff(cap=2.0, base=0.1)
        self._failures = 0
        self._idle_since: float | None = None
        self._malformed = 0
        self._offers = 0
        self._stopping = False

    def run(self) -> None:
        """Serve as long as there is somebody to serve."""
        while self._is_needed():
            try:
                with self._hub.connect(self._waker) as self._connection:
                    self._serve(self._connection)
            except LOST as error:
                self._connection = None
                self._note_outage(error)
                self._pause(self._backoff.compute(self._failures))
            except Exception:  # noqa: BLE001 - a defect of ours must not leave the streams alone
                self._connection = None
                _log.exception("the event hub has failed and starts again")
                self._pause(_TICK)

    def _is_needed(self) -> bool:
        self._obey()
        return bool(self._channels) or not self._hub.retire(self._waker)

    def _is_idle(self) -> bool:
        if self._channels:
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        return self._stopping or time.monotonic() - self._idle_since >= self._hub.linger

    def _serve(self, connection: PubSubConnection) -> None:
        self._align(connection, self._channels)
        while not self._is_idle():
            connection.wait(_TICK)
            self._align(connection, self._obey())
            self._dispatch(connection.read(_READ_LIMIT))
            connection.check()
            self._heed_server()

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; requests are heard all the same."""
        until = time.monotonic() + seconds
        while self._channels and (left := until - time.monotonic()) > 0:
            self._waker.wait(min(left, _TICK))
            self._obey()
            self._heed_server()

    def _obey(self) -> set[bytes]:
        """Do what has been requested; return the channels concerned."""
        requests = self._hub.requests
        concerned: set[bytes] = set()
        while requests:
            request = requests.popleft()
            concerned.add(request.channel)
            if request.joins:
                self._add(request.channel, request.subscriber)
            else:
                self._remove(request.channel, request.subscriber)
        return concerned

    def _add(self, name: bytes, subscriber: Subscriber) -> None:
        if self._stopping:
            subscriber.end()
            return
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
            del self._channels[name]

    def _align(self, connection: PubSubConnection, concerned: Iterable[bytes]) -> None:
        """Subscribe to what is wanted, and to nothing else."""
        wanted, present = self._channels.keys(), connection.channels
        missing = [name for name in concerned if name in wanted and name not in present]
        surplus = [name for name in concerned if name not in wanted and name in present]
        if missing:
            connection.subscribe(missing)
        if surplus:
            connection.unsubscribe(surplus)

    def _dispatch(self, arrivals: Iterable[Published | Subscribed]) -> None:
        # All that has come for a channel is written at once: one system call a
        # client carries many events.
        payloads: dict[bytes, list[bytes]] = {}
        for arrival in arrivals:
            channel = self._channels.get(arrival.channel)
            if channel is None:
                continue
            if isinstance(arrival, Published):
                payloads.setdefault(arrival.channel, []).append(arrival.payload)
                continue
            self._note_recovery()
            # What was sent for an earlier subscription is not for those who have waited
            # for this one: there is a hole in between.
            self._fan_out(arrival.channel, payloads.pop(arrival.channel, []))
            channel.confirm()
        for name, some in payloads.items():
            self._fan_out(name, some)

    def _fan_out(self, name: bytes, payloads: Sequence[bytes]) -> None:
        subscribers = self._channels[name].subscribers
        if not subscribers or not payloads:
            return
        batch = self._to_batch(name, payloads)
        if not batch.frames:
            return
        cut_off: list[Subscriber] = []
        for subscriber in subscribers:
            if not subscriber.offer(batch):
                cut_off.append(subscriber)
            self._offers += 1
            if self._offers % _YIELD_AFTER == 0:
                time.sleep(0)
        for subscriber in cut_off:
            _log.warning(
                "a client of channel %r is cut off: more than SSE_MAX_PENDING bytes waited for it",
                name.decode(errors="replace"),
            )
            self._remove(name, subscriber)

    def _to_batch(self, name: bytes, payloads: Iterable[bytes]) -> Batch:
        provider = self._hub.provider
        sound: list[bytes] = []
        frames: list[bytes] = []
        for payload in payloads:
            try:
                frames.append(encode(from_payload(payload, provider), provider))
            except Exception as error:  # noqa: BLE001 - a JSON provider may raise anything
                self._note_malformed(name, error)
            else:
                sound.append(payload)
        return Batch(sound, b"".join(frames))

    def _heed_server(self) -> None:
        """End all streams once the server has been told to stop."""
        if self._stopping or not _server.is_stopping():
            return
        self._stopping = True
        for channel in self._channels.values():
            channel.end()
        self._channels.clear()

    def _note_malformed(self, name: bytes, error: Exception) -> None:
        self._malformed += 1
        _log.warning(
            "dropped malformed event number %d, on channel %r: %s",
            self._malformed,
            name.decode(errors="replace"),
            error,
        )

    def _note_outage(self, error: Exception) -> None:
        # Once an outage, not once a client or an attempt.
        if not self._failures:
            _log.warning("Redis is away: %s; streams stay open and go on when it is back", error)
        self._failures += 1

    def _note_recovery(self) -> None:
        if self._failures:
            _log.warning("Redis is back after %d attempts", self._failures)
            self._failures = 0
