"""Runs scripts in Redis: one, or many in one pipeline.

It can be called from any thread. What takes a client blocks: it waits for Redis.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, NamedTuple, Protocol

import redis
from redis.client import NEVER_DECODE
from redis.exceptions import NoScriptError

from flask_sse._redis.log_commands import Executor, close_idle, is_read_only

Part = str | bytes | int


@dataclass(frozen=True)
class Script:
    """A script for Redis.

    :param text: The script, as Redis gets it.
    """

    text: bytes
    sha: bytes = field(init=False)
    """By which Redis knows it after it has run once."""

    def __post_init__(self) -> None:
        """Compute the name."""
        sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()
        object.__setattr__(self, "sha", sha)

    @classmethod
    def in_file(cls, name: str) -> "Script":
        """Return the script in a file of this folder, without its comments."""
        text = (resources.files(__package__ or "") / name).read_text()
        return cls("\n".join(one for one in text.splitlines() if one[:2] != "--").encode())


class Call(NamedTuple):
    """A script about a channel, with one key in the slot of the channel, and its arguments."""

    script: Script
    channel: bytes
    key: bytes
    arguments: Sequence[Part] = ()

    def command(self, *, in_full: bool = False) -> tuple[Part, ...]:
        """Return the command.

        :param in_full: Whether it contains the script, which Redis may not know.
        """
        script = ("EVAL", self.script.text) if in_full else ("EVALSHA", self.script.sha)
        return (*script, 1, self.key, *self.arguments)


class Scripts(Protocol):
    """Runs scripts in one Redis, or one cluster."""

    def run(self, call: Call) -> object:
        """Run a script about a channel, and return its answer.

        :raises TypeError: if a given client does not run scripts at once.
        :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
        """
        ...

    def run_all(self, calls: Sequence[Call]) -> Sequence[object]:
        """Run a script for several channels; return the answers, which may be errors.

        :raises TypeError: if a given client does not run scripts at once.
        :raises redis.RedisError: if Redis can't be reached or does not answer.
        """
        ...


def run(executor: Executor, call: Call) -> object:
    """Run a script, and return its answer in bytes.

    :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
    """
    options: dict[str, Any] = {NEVER_DECODE: True}
    try:
        reply: object = executor.execute_command(*call.command(), **options)
    except NoScriptError:
        reply = executor.execute_command(*call.command(in_full=True), **options)
    return reply


def run_on_primary(client: redis.Redis, call: Call) -> object:
    """Run a script; connect again and repeat it if Redis has become a replica.

    :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
    """
    try:
        return run(client, call)
    except redis.ResponseError as error:
        if not is_read_only(error):
            raise
        close_idle(client)
        return run(client, call)


def run_all(client: redis.Redis, calls: Sequence[Call]) -> list[object]:
    """Run the same script with several keys, all in one pipeline.

    :return: the answer to each call, which may be an error.
    :raises redis.RedisError: if Redis can't be reached or does not answer. It may have executed
        some of them.
    """
    replies = _send(client, calls)
    if any(isinstance(reply, redis.ResponseError) and is_read_only(reply) for reply in replies):
        # Redis has done nothing. Its name may belong to another server by now.
        close_idle(client)
        replies = _send(client, calls)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        replies = _send(client, calls, in_full=True)
    return replies


def _send(client: redis.Redis, calls: Sequence[Call], *, in_full: bool = False) -> list[object]:
    untyped: Any = client
    with untyped.pipeline(transaction=False) as pipeline:
        for number, call in enumerate(calls):
            # After the first command, Redis knows the script.
            command = call.command(in_full=in_full and number == 0)
            pipeline.execute_command(*command, **{NEVER_DECODE: True})
        replies: list[object] = pipeline.execute(raise_on_error=False)
    return replies
