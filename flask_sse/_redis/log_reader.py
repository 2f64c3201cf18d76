"""Reads the logs of channels for a hub's loop, in a separate thread.

Only the loop calls `ask`, `answers` and `close`, and none of them blocks. The thread starts
with a question and ends when no questions are left. It sends all waiting questions to Redis
together, and decodes the answers, so that the loop does not have to.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from flask_sse._log.page import Page
from flask_sse._log.position import Entry, Stored
from flask_sse._redis.log_commands import parse_range, read_command
from flask_sse._redis.log_source import LogSource
from flask_sse._system import greenlets
from flask_sse._system.poller import Waker

_AT_ONCE: Final = 64


Asker = TypeVar("Asker")


class Question(NamedTuple, Generic[Asker]):
    """A question about a channel's log."""

    asker: Asker
    """What the answer is for; nothing of it is used here."""
    channel: bytes
    after: int
    """The offset after which to read."""
    is_fill: bool
    """Whether the hub asks for itself, not for a client that has fallen behind."""


class Answer(NamedTuple, Generic[Asker]):
    """The answer to a question, or the reason why there is none."""

    question: Question[Asker]
    page: Page | None
    malformed: Sequence[Exception]
    """The errors of the events that can't be decoded."""
    error: Exception | None


Decode = Callable[[Stored], Entry]
"""Makes the frame of an event; it may raise any exception."""


class LogReader(Generic[Asker]):
    """Asks Redis, and wakes the loop when there are answers.

    :param source: Where the logs are.
    :param database: The number of the database that has them.
    :param answers: Where the answers are put, instead of being returned by :meth:`answers`.
    """

    def __init__(
        self,
        source: LogSource,
        decode: Decode,
        database: int,
        waker: Waker,
        answers: deque[Answer[Asker]] | None = None,
    ) -> None:
        self._source = source
        self._decode = decode
        self._database = database
        self._waker = waker
        self._lock = threading.Lock()
        self._is_working = False
        self._is_closed = False
        self._asked: deque[Question[Asker]] = deque()
        self._answers: deque[Answer[Asker]] = deque() if answers is None else answers

    @property
    def is_working(self) -> bool:
        """Whether a thread is working whose result the loop must handle."""
        return self._is_working

    def ask(self, questions: Sequence[Question[Asker]]) -> None:
        """Ask questions, whose answers come later."""
        with self._lock:
            self._asked.extend(questions)
            if self._is_working:
                return
            self._is_working = True
        try:
            greenlets.start_beside(self._run, "flask-sse-log")
        except RuntimeError as error:
            # The process is out of threads.
            self._is_working = False
            self._fail(self._take(len(self._asked)), error)

    def answers(self) -> Iterator[Answer[Asker]]:
        """Yield the answers that have arrived."""
        while self._answers:
            yield self._answers.popleft()

    def close(self) -> None:
        """Disconnect as soon as no question is in progress."""
        with self._lock:
            self._is_closed = True
            is_working = self._is_working
        if not is_working:
            self._source.disconnect()

    def _run(self) -> None:
        while questions := self._next():
            try:
                self._answer(questions)
            except Exception as error:  # noqa: BLE001 - the loop asks again after any error
                self._source.disconnect()
                self._fail(questions, error)
            self._waker.set()

    def _next(self) -> list[Question[Asker]]:
        with self._lock:
            questions = self._take(_AT_ONCE)
            if not questions:
                self._is_working = False
                if self._is_closed:
                    self._source.disconnect()
            return questions

    def _take(self, number: int) -> list[Question[Asker]]:
        return [self._asked.popleft() for _ in range(min(number, len(self._asked)))]

    def _answer(self, questions: Sequence[Question[Asker]]) -> None:
        commands = [read_command(one.channel, one.after, self._database) for one in questions]
        for question, reply in zip(questions, self._source.exchange(commands), strict=True):
            if isinstance(reply, Exception):
                self._fail([question], reply)
            else:
                self._answers.append(self._understand(question, reply))

    def _understand(self, question: Question[Asker], reply: object) -> Answer[Asker]:
        found = parse_range(reply)
        entries: list[Entry] = []
        malformed: list[Exception] = []
        for stored in found.entries:
            try:
                entries.append(self._decode(stored))
            except Exception as error:  # noqa: BLE001 - a JSON provider may raise anything
                malformed.append(error)
                entries.append(Entry(stored.position, stored.previous, b"", None))
        page = Page(question.after, found.top, entries, found.ends_after)
        return Answer(question, page, malformed, None)

    def _fail(self, questions: Sequence[Question[Asker]], error: Exception) -> None:
        self._answers.extend(Answer(question, None, (), error) for question in questions)
