"""A hub's channels with history: their questions to Redis, and when to compare with it.

Only the hub's owner uses it, except for `note_drained`. Nothing blocks.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from flask.json.provider import JSONProvider

from flask_sse._channel import Channel
from flask_sse._history import Entry, EventId, Stored
from flask_sse._log_reader import Answer, LogReader, Open, Question
from flask_sse._logged import Foreign, LoggedChannel
from flask_sse._message import Message, encode, from_payload, to_payload
from flask_sse._settings import Retention
from flask_sse._subscriber import Follower
from flask_sse._waker import Waker

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
    open: Open
    """Makes a connection to Redis. It may block, and may raise any exception."""
    database: int
    """The number of the database that has the logs."""


class Logs:
    """The channels with history."""

    def __init__(self, history: History, provider: JSONProvider, waker: Waker) -> None:
        self._history = history
        self._provider = provider
        self._waker = waker
        self._reader = LogReader(history.open, self._to_entry, history.database, waker)
        self._channels: dict[LoggedChannel, None] = {}
        self._asking: dict[LoggedChannel, None] = {}
        self._failed: deque[tuple[float, Question]] = deque()
        self._answers: deque[Answer] = deque()
        self._drained: deque[tuple[bytes, Follower]] = deque()
        self._looked = 0.0
        self._is_failing = False

    @property
    def is_reading(self) -> bool:
        """Whether a thread is working whose result the owner must handle."""
        return self._reader.is_working

    def new_channel(
        self,
        name: bytes,
        decode: Callable[[bytes, bytes], Entry | Foreign | None],
        pause: Callable[[], None],
    ) -> LoggedChannel | None:
        """Return a new channel, if the channel of this name has history."""
        retention = self._history.retention(name)
        if retention is None:
            return None
        channel = LoggedChannel(
            name,
            partial(decode, name),
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

    def watch(self, name: bytes, follower: Follower) -> None:
        """Make a follower report when it has taken everything."""
        follower.refill = partial(self.note_drained, name, follower)

    def note_drained(self, name: bytes, follower: Follower) -> None:
        """Note, from any thread, that a follower has taken everything."""
        self._drained.append((name, follower))
        self._waker.set()

    def drained(self) -> Iterator[tuple[bytes, Follower]]:
        """Yield the followers that have taken everything, with the names of their channels."""
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
                question.asker.ask_again(is_fill=question.is_fill)
        if not self._asking:
            return
        asking, self._asking = self._asking, {}
        questions: list[Question] = []
        for channel in asking:
            for after, is_fill in ((channel.page_after(), False), (channel.fill_after(), True)):
                if after is not None:
                    questions.append(Question(channel, after, is_fill))
        if questions:
            self._reader.ask(questions)

    def collect(self) -> None:
        """Take the answers that have arrived, for :meth:`answers`.

        Between the two calls, events that Redis published before the answers must be received: a
        listener that begins at an answer's position would not get them.
        """
        self._answers.extend(self._reader.answers())

    def answers(self) -> Iterator[Answer]:
        """Yield the answers for channels that still have listeners."""
        while self._answers:
            answer = self._answers.popleft()
            if answer.page is not None:
                self._is_failing = False
            if answer.question.asker in self._channels:
                yield answer

    def note_failure(self, question: Question, error: Exception | None) -> None:
        """Note that a question must be asked again after a while."""
        if not self._is_failing:
            self._is_failing = True
            _log.warning("the history in Redis can't be read, trying again: %s", error)
        self._failed.append((time.monotonic() + _ASK_AGAIN_AFTER, question))

    def decode(self, payload: bytes) -> Entry | Foreign:
        """Decode a published event; it may raise any exception."""
        message = from_payload(payload, self._provider)
        found = EventId.parse(message.id) if isinstance(message.id, str) else None
        if found is None or found.position.database != str(self._history.database):
            if message.id is not None:
                message.id = None
                payload = to_payload(message, self._provider)
            return Foreign(self._frame(message), payload)
        position, previous, is_large = found
        if is_large:
            return Entry(position, previous, b"", None)
        message.id = str(position)
        return Entry(position, previous, self._frame(message), payload)

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()

    def _room(self) -> int:
        return min(RING_BYTES, ALL_RINGS_BYTES // max(len(self._channels), 1))

    def _note_question(self, channel: LoggedChannel) -> None:
        self._asking[channel] = None

    def _to_entry(self, stored: Stored) -> Entry:
        position, previous, payload = stored
        message = from_payload(payload, self._provider)
        message.id = str(position)
        return Entry(position, previous, self._frame(message), payload)

    def _frame(self, message: Message) -> bytes:
        return encode(message, self._provider)
