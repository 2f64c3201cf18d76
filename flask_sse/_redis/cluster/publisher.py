"""Publishes the events of one application on a Redis Cluster.

It can be called from any thread, and blocks until a node has answered. An event without history is
sent again only if the node has refused it, or can't be reached while another one has taken over,
so nobody gets it twice. An event with history is sent again after any error that may pass, for up
to `REPEAT_FOR` seconds after the first: its nonce tells Redis whether it has been published.
"""

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import redis
from redis.cluster import ClusterPipeline, RedisCluster
from redis.exceptions import ClusterError, RedisClusterException, TryAgainError

from flask_sse._log.position import OFFSET_AT_TOP, Position
from flask_sse._redis import log_commands, scripts
from flask_sse._redis.cluster.errors import (
    LOST,
    explain_old,
    is_passing,
    is_unsupported,
)
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.pipelines import run_all
from flask_sse._redis.cluster.route import Route
from flask_sse._redis.cluster.router import Router
from flask_sse._redis.log_commands import Executor, NewEntry
from flask_sse._redis.pool import ConnectionLimit
from flask_sse._redis.primary import Answer
from flask_sse._redis.scripts import Call
from flask_sse._system import greenlets
from flask_sse._system.clock import monotonic

REPEAT_FOR: Final = 5.0
"""Seconds after the first error for which an event with history is sent again."""
_DATABASE: Final = 0
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.2
_AT_ONCE: Final = 3
"""How many redirections are followed without a pause."""
_Result = TypeVar("_Result")


Script = Callable[[Executor, bool], _Result]
"""Runs a script once; the second argument says whether it may have been executed before."""


class Target(Protocol):
    """Where a command about a channel goes."""

    def executor(self) -> Executor:
        """Return the object that executes the next command. It may block, and raise any error."""
        ...

    def note(self, error: redis.RedisError) -> bool:
        """Learn from an error; return whether it names a node that can be asked at once."""
        ...


class _OnClient:
    """The way to the node of a channel, through an application's own client."""

    def __init__(self, client: RedisCluster, channel: bytes) -> None:
        self._client: Any = client
        self._channel = channel

    def executor(self) -> Executor:
        """Return this object."""
        return self

    def note(self, error: redis.RedisError) -> bool:
        """Return that no other node is known."""
        return False

    def execute_command(self, *command: Any, **options: Any) -> Any:
        """Execute a command on the node that has the channel."""
        try:
            node = self._client.get_node_from_key(self._channel)
            # With a node that is named, no version of redis-py repeats a command, whatever the
            # client's own retries are.
            return self._client.execute_command(*command, target_nodes=node, **options)
        except RedisClusterException as error:
            raise redis.ConnectionError(f"the Redis Cluster can't be asked: {error}") from error
        except ClusterError as error:
            if isinstance(error, redis.ResponseError):
                raise
            # All nodes have refused: redis-py follows MOVED to a wrong node if the name of a
            # channel is not UTF-8, but then it knows the right one.
            raise TryAgainError(str(error)) from error


class ClusterPublisher:
    """Publishes on connections of its own to the nodes of a cluster."""

    def __init__(self, nodes: ClusterNodes) -> None:
        self._nodes = nodes
        self._router = Router(nodes)
        self._limit = ConnectionLimit(nodes.connections)

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish a payload; return how many connections are subscribed to the channel."""
        return self._use(lambda router: _publish(Route(router, channel), channel, payload))

    def append(self, channel: bytes, event: NewEntry) -> int:
        """Publish an event and keep it; return how many connections are subscribed."""
        run = _append_of(channel, event)
        return self._use(lambda router: repeat(Route(router, channel), run))

    def position(self, channel: bytes) -> Position:
        """Return the newest position in the log of a channel."""
        run = _position_of(channel)
        return self._use(lambda router: repeat(Route(router, channel), run))

    def run(self, call: Call) -> object:
        """Run a script about a channel, and return its answer."""
        return self._use(lambda router: _repeat_call(Route(router, call.channel), call))

    def run_all(self, calls: Sequence[Call]) -> Sequence[object]:
        """Run a script for several channels; return the answers, which may be errors."""
        return self._use(partial(run_all, calls))

    def disconnect(self) -> None:
        """Close the connections that are not in use."""
        self._router.disconnect()

    def _use(self, command: Callable[[Router], _Result]) -> _Result:
        if greenlets.in_foreign_thread():
            router = Router(self._nodes)
            try:
                return _run(lambda: command(router))
            finally:
                router.disconnect()
        with self._limit:
            return _run(lambda: command(self._router))


class ClusterClientPublisher:
    """Publishes through a client of the application for a cluster.

    :param client: The client; its own retries are not used.
    :raises TypeError: if it is a pipeline.
    """

    __slots__ = ("_client",)

    def __init__(self, client: RedisCluster) -> None:
        if isinstance(client, ClusterPipeline):
            raise TypeError(
                "redis must be a client that publishes at once, such as "
                "redis.cluster.RedisCluster, and not a pipeline"
            )
        self._client = client

    def publish(self, channel: bytes, payload: bytes) -> int:
        """Publish a payload; return how many connections are subscribed to the channel."""
        target = _OnClient(self._client, channel)
        try:
            return _publish(target, channel, payload)
        except TryAgainError:
            return _publish(target, channel, payload)

    def append(self, channel: bytes, event: NewEntry) -> int:
        """Publish an event and keep it; return how many connections are subscribed."""
        return repeat(_OnClient(self._client, channel), _append_of(channel, event))

    def position(self, channel: bytes) -> Position:
        """Return the newest position in the log of a channel."""
        return repeat(_OnClient(self._client, channel), _position_of(channel))

    def run(self, call: Call) -> object:
        """Run a script about a channel, and return its answer."""
        return _repeat_call(_OnClient(self._client, call.channel), call)

    def run_all(self, calls: Sequence[Call]) -> Sequence[object]:
        """Run a script for several channels; return the answers, which may be errors."""
        return [self._answer(call) for call in calls]

    def _answer(self, call: Call) -> object:
        try:
            return scripts.run(_OnClient(self._client, call.channel), call)
        except redis.RedisError as error:
            return error


def repeat(
    target: Target,
    run: Script[_Result],
    explain: Callable[[redis.ResponseError], redis.ResponseError] = log_commands.explain_script,
) -> _Result:
    """Run a script until a node has executed it.

    :param explain: Returns what is raised for an error that will not pass.
    :raises redis.RedisError: if the error will not pass, or has not passed in `REPEAT_FOR` seconds.
    """
    deadline: float | None = None
    may_be_done = False
    redirections = 0
    pause = _FIRST_PAUSE
    while True:
        executor: Executor | None = None
        try:
            executor = target.executor()
            return run(executor, may_be_done)
        except redis.RedisError as error:
            now = monotonic()
            deadline = now + REPEAT_FOR if deadline is None else deadline
            if not is_passing(error) and isinstance(error, redis.ResponseError):
                _check_version(error, executor)
                explained = explain(error)
                raise explained from None if explained is error else error
            if not is_passing(error) or now >= deadline:
                raise
            may_be_done = may_be_done or isinstance(error, LOST)
            redirections = redirections + 1 if target.note(error) else 0
        if not 0 < redirections <= _AT_ONCE:
            # Not all processes should ask at the same time.
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)


def _publish(target: Target, channel: bytes, payload: bytes) -> int:
    """Publish a payload, on a second node if the first one names it, or is gone."""
    is_second = False
    while True:
        executor: Executor | None = None
        try:
            executor = target.executor()
            answer: Answer | int = executor.execute_command("SPUBLISH", channel, payload)
        except redis.RedisError as error:
            is_known = target.note(error)
            if is_second or not (is_known or _finds_another(target, error)):
                _check_version(error, executor)
                raise
            is_second = True
            continue
        if not isinstance(answer, Answer):
            return answer
        if answer.is_replica and isinstance(target, Route):
            # It has passed the event on to the other nodes of its shard.
            target.note_replica()
        return answer.number


def _finds_another(target: Target, error: redis.RedisError) -> bool:
    return isinstance(target, Route) and target.finds_another(error)


def _append_of(channel: bytes, event: NewEntry) -> Script[int]:
    arguments = log_commands.append_arguments(channel, event, _DATABASE)

    def run(executor: Executor, may_be_done: bool) -> int:
        marks = (b"again" if may_be_done else b"", b"SPUBLISH")
        return log_commands.append_once(executor, log_commands.key(channel), *arguments, *marks)

    return run


def _position_of(channel: bytes) -> Script[Position]:
    command = log_commands.read_command(channel, OFFSET_AT_TOP, _DATABASE)

    def run(executor: Executor, may_be_done: bool) -> Position:
        return log_commands.parse_range(log_commands.execute(executor, *command)).top

    return run


def _repeat_call(target: Target, call: Call) -> object:
    def run(executor: Executor, may_be_done: bool) -> object:
        return scripts.run(executor, call)

    return repeat(target, run, explain=_unexplained)


def _unexplained(error: redis.ResponseError) -> redis.ResponseError:
    return error


def _check_version(error: redis.RedisError, executor: Executor | None) -> None:
    """Raise another error if a node has refused a command that its version does not have.

    :param executor: The object that has executed the command, if any.
    """
    if executor is not None and is_unsupported(error):
        try:
            version = executor.execute_command("INFO", "server")["redis_version"]
        except redis.RedisError:
            version = "of an unknown version"
        raise explain_old(version) from error


def _run(command: Callable[[], _Result]) -> _Result:
    try:
        return command()
    except UnicodeError as error:
        # Only the host name is encoded here; redis-py converts only an OSError.
        raise redis.ConnectionError(
            f"the host of a node can't be looked up; check REDIS_URL: {error}"
        ) from error
