"""Reads the logs of channels for a hub's owner, in a separate thread.

Only the owner calls `ask`, `answers` and `close`, and none of them blocks. The thread starts
with a question and ends when no questions are left. It sends all waiting questions to Redis
together, and decodes the answers, so that the owner does not have to.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import redis

from flask_sse import _gevent
from flask_sse._history import Entry, Stored, parse_range, read_command
from flask_sse._logged import LoggedChannel
from flask_sse._page import Page
from flask_sse._pubsub import LOST, RedisConnection
from flask_sse._waker import Waker

_AT_ONCE: Final = 64


class Question(NamedTuple):
    """A question about a channel's log."""

    asker: LoggedChannel
    after: int
    """The offset after which to read."""
    is_fill: bool
    """Whether the hub asks for itself, not for a client that has fallen behind."""


class Answer(NamedTuple):
    """The answer to a question, or the reason why there is none."""

    question: Question
    page: Page | None
    malformed: Sequence[Exception]
    """The errors of the events that can't be decoded."""
    error: Exception | None


Decode = Callable[[Stored], Entry]
"""Makes the frame of an event; it may raise any exception."""
Open = Callable[[], RedisConnection]
"""Makes a connection to Redis. It may block, and may raise any exception."""


class LogReader:
    """Asks Redis, and wakes the owner when there are answers.

    :param database: The number of the database that has the logs.
    """

    def __init__(self, open_: Open, decode: Decode, database: int, waker: Waker) -> None:
        self._open = open_
        self._decode = decode
        self._database = database
        self._waker = waker
        self._connection: RedisConnection | None = None
        self._lock = threading.Lock()
        self._is_working = False
        self._is_closed = False
        self._asked: deque[Question] = deque()
        self._answers: deque[Answer] = deque()

    @property
    def is_working(self) -> bool:
        """Whether a thread is working whose result the owner must handle."""
        return self._is_working

    def ask(self, questions: Sequence[Question]) -> None:
        """Ask questions, whose answers come later."""
        with self._lock:
            self._asked.extend(questions)
            if self._is_working:
                return
            self._is_working = True
        try:
            _gevent.start_beside(self._run, "flask-sse-log")
        except RuntimeError as error:
            # The process is out of threads.
            self._is_working = False
            self._fail(self._take(len(self._asked)), error)

    def answers(self) -> Iterator[Answer]:
        """Yield the answers that have arrived."""
        while self._answers:
            yield self._answers.popleft()

    def close(self) -> None:
        """Disconnect as soon as no question is in progress."""
        with self._lock:
            self._is_closed = True
            connection = None if self._is_working else self._connection
        if connection is not None:
            connection.disconnect()

    def _run(self) -> None:
        while questions := self._next():
            try:
                self._answer(questions)
            except Exception as error:  # noqa: BLE001 - the owner asks again after any error
                self._disconnect()
                self._fail(questions, error)
            self._waker.set()

    def _next(self) -> list[Question]:
        with self._lock:
            questions = self._take(_AT_ONCE)
            if not questions:
                self._is_working = False
                if self._is_closed:
                    self._disconnect()
            return questions

    def _take(self, number: int) -> list[Question]:
        return [self._asked.popleft() for _ in range(min(number, len(self._asked)))]

    def _answer(self, questions: Sequence[Question]) -> None:
        try:
            replies = self._exchange(questions)
        except LOST:
            # The connection may have been idle for too long.
            self._disconnect()
            replies = self._exchange(questions)
        for question, reply in zip(questions, replies, strict=True):
            if isinstance(reply, Exception):
                self._fail([question], reply)
            else:
                self._answers.append(self._understand(question, reply))

    def _exchange(self, questions: Sequence[Question]) -> list[object]:
        if self._connection is None:
            self._connection = self._open()
        connection = self._connection
        commands = [
            read_command(question.asker.name, question.after, self._database)
            for question in questions
        ]
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        return [_read(connection) for _ in questions]

    def _understand(self, question: Question, reply: object) -> Answer:
        found = parse_range(reply)
        entries: list[Entry] = []
        malformed: list[Exception] = []
        for stored in found.entries:
            try:
                entries.append(self._decode(stored))
            except Exception as error:  # noqa: BLE001 - a JSON provider may raise anything
                malformed.append(error)
                entries.append(Entry(stored.position, stored.previous, b"", None))
        return Answer(question, Page(question.after, found.top, entries), malformed, None)

    def _fail(self, questions: Sequence[Question], error: Exception) -> None:
        self._answers.extend(Answer(question, None, (), error) for question in questions)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


def _read(connection: RedisConnection) -> object:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
