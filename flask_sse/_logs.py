"""The channels with history of a hub: which have a question for Redis, and when to compare.

For the hub's owner alone, but for `note_drained`. Nothing blocks.
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

The last event before a loss of Redis shows in no later one.
"""

RING_BYTES: Final = 1 << 18
"""Bytes of a channel's newest events that are kept in memory, for clients that come back."""

ALL_RINGS_BYTES: Final = 1 << 26
"""Bytes that all channels have together, in equal shares."""

_LOOK_EVERY: Final = 1.0
_ASK_AGAIN_AFTER: Final = 0.5


class History(NamedTuple):
    """Which channels have a log, and how to read it."""

    retention: Callable[[bytes], Retention | None]
    open: Open
    """Makes a connection to Redis. It may block, and raise anything."""
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
        """Whether a thread is at work that will need the owner."""
        return self._reader.is_working

    def new_channel(
        self,
        name: bytes,
        decode: Callable[[bytes, bytes], Entry | Foreign | None],
        pause: Callable[[], None],
    ) -> LoggedChannel | None:
        """Return a channel with history, if the one of this name has it."""
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
        """Forget a channel to which nobody listens any more."""
        if isinstance(channel, LoggedChannel):
            self._channels.pop(channel, None)
            self._asking.pop(channel, None)

    def watch(self, name: bytes, follower: Follower) -> None:
        """Have a follower tell when nothing waits for it any more."""
        follower.refill = partial(self.note_drained, name, follower)

    def note_drained(self, name: bytes, follower: Follower) -> None:
        """Note from any thread that nothing waits for a follower any more."""
        self._drained.append((name, follower))
        self._waker.set()

    def drained(self) -> Iterator[tuple[bytes, Follower]]:
        """Yield the followers for which nothing waits, with the names of their channels."""
        while self._drained:
            yield self._drained.popleft()

    def silent(self, now: float) -> Iterator[LoggedChannel]:
        """Yield the channels that are to be compared with their logs."""
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        for channel in [*self._channels]:
            if now - channel.heard > COMPARE_AFTER:
                channel.heard = now
                yield channel

    def ask(self, now: float) -> None:
        """Ask what the channels want to know."""
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
        """Take the answers that have come, for :meth:`answers`.

        What Redis had published before is to be received in between: a listener that begins at the
        position that an answer names would not get it.
        """
        self._answers.extend(self._reader.answers())

    def answers(self) -> Iterator[Answer]:
        """Yield the answers for channels to which somebody still listens."""
        while self._answers:
            answer = self._answers.popleft()
            if answer.page is not None:
                self._is_failing = False
            if answer.question.asker in self._channels:
                yield answer

    def note_failure(self, question: Question, error: Exception | None) -> None:
        """Note that a question has to be asked again, in a while."""
        if not self._is_failing:
            self._is_failing = True
            _log.warning("the history in Redis can't be read, trying again: %s", error)
        self._failed.append((time.monotonic() + _ASK_AGAIN_AFTER, question))

    def decode(self, payload: bytes) -> Entry | Foreign:
        """Decode an event that has been published; any exception may be raised."""
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
