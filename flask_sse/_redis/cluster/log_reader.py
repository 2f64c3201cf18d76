"""Reads the logs of a cluster: each on the node that has it, in a separate thread for each node.

Only the hub's loop uses it, and nothing blocks. A node that does not answer delays only its own
logs. Which node has which logs is known after a look at the cluster, in a thread of its own. A log
that a node does not have is asked for where the node says. If a node fails, the questions about
its logs wait for the next look.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final, Generic, NamedTuple

import redis
from redis.exceptions import ClusterDownError

from flask_sse._redis.attempt import Attempt
from flask_sse._redis.cluster.errors import LOGIN, LOST, Redirection, is_passing
from flask_sse._redis.cluster.logs import NodeLogs
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.topology import SlotMap, look
from flask_sse._redis.log_reader import Answer, Asker, Decode, LogReader, Question
from flask_sse._redis.log_source import LogSource
from flask_sse._redis.slots import slot
from flask_sse._redis.url import Address
from flask_sse._system.poller import Waker

_REDIRECTIONS: Final = 3


class _Place(NamedTuple):
    """Where a question is asked."""

    address: Address
    is_importing: bool = False
    """Whether the node is still getting the log from another one."""


class _Asked(NamedTuple, Generic[Asker]):
    """A question, and where it has been asked."""

    question: Question[Asker]
    place: _Place
    redirections: int


class ClusterLogReader(Generic[Asker]):
    """Asks the nodes, and wakes the loop when there are answers.

    :param nodes: Makes the clients of the nodes.
    """

    def __init__(self, nodes: ClusterNodes, decode: Decode, database: int, waker: Waker) -> None:
        self._cluster = nodes
        self._decode = decode
        self._database = database
        self._waker = waker
        # All readers put their answers here, so that the loop has one place to look at.
        self._answers: deque[Answer[_Asked[Asker]]] = deque()
        self._readers: dict[_Place, LogReader[_Asked[Asker]]] = {}
        self._slots: SlotMap | None = None
        # The slots that nodes have sent us on for since the last look.
        self._moved: dict[int, Address] = {}
        # The nodes that have failed, and perhaps no longer have their slots.
        self._doubted: set[Address] = set()
        self._look: Attempt[SlotMap] | None = None
        # The questions that have been asked at a node that has failed.
        self._failed: set[Question[Asker]] = set()
        # The questions that wait for a look at the cluster.
        self._waiting: list[Question[Asker]] = []

    @property
    def is_working(self) -> bool:
        """Whether a thread is working whose result the loop must handle."""
        return self._look is not None or any(one.is_working for one in self._readers.values())

    def ask(self, questions: Sequence[Question[Asker]]) -> None:
        """Ask questions, whose answers come later."""
        asked: list[_Asked[Asker]] = []
        for question in questions:
            address = self._owner(slot(question.channel))
            if address is None or address in self._doubted:
                self._waiting.append(question)
            else:
                asked.append(_Asked(question, _Place(address), 0))
        self._send(asked)
        self._look_if_needed()

    def answers(self) -> Sequence[Answer[Asker]]:
        """Return the answers that have arrived."""
        if self._look is None and not self._answers:
            return ()
        answers: list[Answer[Asker]] = []
        if self._look is not None and self._look.is_done:
            answers.extend(self._finish_look(self._look))
        redirected: list[_Asked[Asker]] = []
        while self._answers:
            answer = self._answers.popleft()
            asked = answer.question.asker
            if asked.place.is_importing:
                self._drop(asked.place)
            if answer.error is not None and (again := self._redirect(asked, answer.error)):
                redirected.append(again)
                continue
            self._note(asked.place.address, answer.error)
            if self._is_repeated(asked.question, answer.error):
                self._waiting.append(asked.question)
                continue
            answers.append(Answer(asked.question, answer.page, answer.malformed, answer.error))
        self._send(redirected)
        self._look_if_needed()
        return answers

    def close(self) -> None:
        """Disconnect as soon as no question is in progress."""
        if self._look is not None:
            self._look.abandon()
            self._look = None
        for place in [*self._readers]:
            self._drop(place)

    # The questions

    def _owner(self, number: int) -> Address | None:
        if self._slots is None:
            return None
        return self._moved.get(number) or self._slots.owner(number)

    def _send(self, asked: Iterable[_Asked[Asker]]) -> None:
        """Ask the nodes; each is sent its questions together."""
        grouped: defaultdict[_Place, list[Question[_Asked[Asker]]]] = defaultdict(list)
        for one in asked:
            _, channel, after, is_fill = one.question
            grouped[one.place].append(Question(one, channel, after, is_fill))
        for place, questions in grouped.items():
            reader = self._readers.get(place)
            if reader is None:
                reader = self._readers[place] = self._new_reader(place)
            reader.ask(questions)

    def _redirect(self, asked: _Asked[Asker], error: Exception) -> _Asked[Asker] | None:
        """Return what to ask next if a node has named another one."""
        question, place, redirections = asked
        found = Redirection.of(error, place.address)
        if found is None or redirections >= _REDIRECTIONS:
            return None
        if not found.is_ask:
            self._moved[found.slot] = found.address
        return _Asked(question, _Place(found.address, found.is_ask), redirections + 1)

    def _note(self, address: Address, error: Exception | None) -> None:
        """Doubt a node that has failed until it answers."""
        if error is None:
            self._doubted.discard(address)
        elif not isinstance(error, redis.ResponseError) or is_passing(error):
            self._doubted.add(address)

    def _is_repeated(self, question: Question[Asker], error: Exception | None) -> bool:
        """Whether a question waits for a look, because its node has failed for the first time."""
        if (
            isinstance(error, LOST)
            and not isinstance(error, LOGIN)
            and question not in self._failed
        ):
            self._failed.add(question)
            return True
        self._failed.discard(question)
        return False

    # The nodes

    def _look_if_needed(self) -> None:
        if self._waiting and self._look is None:
            self._begin_look()

    def _new_reader(self, place: _Place) -> LogReader[_Asked[Asker]]:
        source = NodeLogs(self._cluster, place.address, is_importing=place.is_importing)
        return LogReader(source, self._decode, self._database, self._waker, self._answers)

    def _drop(self, place: _Place) -> None:
        """Close a reader, which still answers the questions that it has been asked."""
        if (reader := self._readers.pop(place, None)) is not None:
            reader.close()

    def _begin_look(self) -> None:
        known = () if self._slots is None else self._slots.primaries
        function = partial(look, self._cluster, known, doubted={*self._doubted})
        self._look = Attempt(function, lambda _: None, self._waker)
        self._look.start("flask-sse-topology")

    def _finish_look(self, attempt: Attempt[SlotMap]) -> Iterator[Answer[Asker]]:
        self._look = None
        waiting, self._waiting = self._waiting, []
        if attempt.result is None:
            error = attempt.error or redis.ConnectionError("the cluster does not answer")
            yield from (Answer(question, None, (), error) for question in waiting)
            return
        self._slots, self._moved = attempt.result, {}
        for place in [*self._readers]:
            if place.address not in self._slots.primaries:
                self._drop(place)
        self._doubted &= self._slots.primaries
        asked: list[_Asked[Asker]] = []
        for question in waiting:
            # A node that is still said to have the log is asked again.
            address = self._slots.owner(slot(question.channel))
            if address is None:
                problem = ClusterDownError("no node of the Redis Cluster has this channel")
                yield Answer(question, None, (), problem)
            else:
                asked.append(_Asked(question, _Place(address), 0))
        self._send(asked)


AnyLogReader = LogReader[Asker] | ClusterLogReader[Asker]
"""Reads logs, wherever they are."""


def new_reader(
    source: LogSource | ClusterNodes, decode: Decode, database: int, waker: Waker
) -> AnyLogReader[Asker]:
    """Return a reader for logs on one Redis, or in a cluster."""
    if isinstance(source, ClusterNodes):
        return ClusterLogReader(source, decode, database, waker)
    return LogReader(source, decode, database, waker)
