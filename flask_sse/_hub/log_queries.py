"""A hub's channels with history: their questions to Redis, and when to compare with it.

Only the hub's loop uses it, except for `note_drained`. Nothing blocks.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from flask.json.provider import JSONProvider

from flask_sse._hub.channel import Channel
from flask_sse._hub.logged_channel import LoggedChannel
from flask_sse._hub.subscriber import Subscriber
from flask_sse._log.decoding import Decoder, Event
from flask_sse._redis.cluster.log_reader import AnyLogReader, new_reader
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.log_reader import Answer, Question
from flask_sse._redis.log_source import LogSource
from flask_sse._settings import Retention
from flask_sse._system.clock import monotonic
from flask_sse._system.poller import Waker

_log: Final = logging.getLogger("flask_sse")

COMPARE_AFTER: Final = 10.0
"""Seconds of silence after which a channel is compared with its log.

If the last event before a silence is lost, no later event reveals the gap.
"""

RING_BYTES: Final = 1 << 18
"""Bytes of a channel's newest events that are kept in memory, for clients that resume."""

ALL_RINGS_BYTES: Final = 1 << 26
"""Bytes for all channels together, in equal shares."""

_LOOK_EVERY: Final = 1.0
_ASK_AGAIN_AFTER: Final = 0.5


class History(NamedTuple):
    """Which channels have a log, and how to read it."""

    retention: Callable[[bytes], Retention | None]
    source: Callable[[], LogSource | ClusterNodes]
    """Says where to read it; it does not connect yet."""
    database: int
    """The number of the database that has the logs."""


class Logs:
    """The channels with history."""

    def __init__(self, history: History, provider: JSONProvider, waker: Waker) -> None:
        self._history = history
        self._waker = waker
        decoder = Decoder(provider, history.database)
        self.decode: Final[Callable[[bytes], Event]] = decoder.published
        """Decodes a published event; it may raise any exception."""
        self._reader: AnyLogReader[LoggedChannel] = new_reader(
            history.source(), decoder.stored, history.database, waker
        )
        self._channels: dict[LoggedChannel, None] = {}
        self._asking: dict[LoggedChannel, None] = {}
        self._failed: deque[tuple[float, Question[LoggedChannel]]] = deque()
        self._answers: deque[Answer[LoggedChannel]] = deque()
        self._drained: deque[Subscriber] = deque()
        self._looked = 0.0
        # The channels whose last question has failed.
        self._failing: set[LoggedChannel] = set()

    @property
    def is_reading(self) -> bool:
        """Whether a thread is working whose result the loop must handle."""
        return self._reader.is_working

    def new_channel(self, name: bytes, pause: Callable[[], None]) -> LoggedChannel | None:
        """Return a new channel, if the channel of this name has history."""
        retention = self._history.retention(name)
        if retention is None:
            return None
        channel = LoggedChannel(
            name,
            self._note_question,
            pause,
            self._room,
            sends_latest=retention.is_latest,
        )
        self._channels[channel] = None
        return channel

    def forget(self, channel: Channel) -> None:
        """Forget a channel that no longer has listeners."""
        if isinstance(channel, LoggedChannel):
            self._channels.pop(channel, None)
            self._asking.pop(channel, None)
            self._failing.discard(channel)

    def watch(self, subscriber: Subscriber) -> None:
        """Make a subscriber that is behind report when it has taken everything."""
        subscriber.when_drained(partial(self.note_drained, subscriber))

    def note_drained(self, subscriber: Subscriber) -> None:
        """Note, from any thread, that a subscriber has taken everything."""
        self._drained.append(subscriber)
        self._waker.set()

    def drained(self) -> Iterator[Subscriber]:
        """Yield the subscribers that have taken everything."""
        while self._drained:
            yield self._drained.popleft()

    def silent(self, now: float) -> Iterator[LoggedChannel]:
        """Yield the channels that must be compared with their logs."""
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        for channel in [*self._channels]:
            if now - channel.heard > COMPARE_AFTER:
                channel.heard = now
                yield channel

    def ask(self, now: float) -> None:
        """Ask the questions of the channels."""
        while self._failed and self._failed[0][0] <= now:
            _, question = self._failed.popleft()
            if question.asker in self._channels:
                question.asker.failed(is_fill=question.is_fill)
        if not self._asking:
            return
        asking, self._asking = self._asking, {}
        questions = [
            Question(channel, channel.name, after, is_fill)
            for channel in asking
            for after, is_fill in channel.questions()
        ]
        if questions:
            self._reader.ask(questions)

    def collect(self) -> None:
        """Take the answers that have arrived, for :meth:`answers`.

        Between the two calls, events that Redis published before the answers must be received: a
        listener that begins at an answer's position would not get them.
        """
        self._answers.extend(self._reader.answers())

    def answers(self) -> Iterator[Answer[LoggedChannel]]:
        """Yield the answers for channels that still have listeners."""
        while self._answers:
            answer = self._answers.popleft()
            if answer.page is not None:
                self._failing.discard(answer.question.asker)
            if answer.question.asker in self._channels:
                yield answer

    def note_failure(self, question: Question[LoggedChannel], error: Exception | None) -> None:
        """Note that a question must be asked again after a while."""
        if not self._failing:
            # In a cluster, other nodes may answer in the meantime.
            _log.warning("the history in Redis can't be read, trying again: %s", error)
        self._failing.add(question.asker)
        self._failed.append((monotonic() + _ASK_AGAIN_AFTER, question))

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()

    def _room(self) -> int:
        return min(RING_BYTES, ALL_RINGS_BYTES // max(len(self._channels), 1))

    def _note_question(self, channel: LoggedChannel) -> None:
        self._asking[channel] = None
