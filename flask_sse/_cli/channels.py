"""The channels that have listeners, and their members: on one Redis, or in a whole cluster.

It blocks until Redis has answered, for a few seconds at most for each node.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, cast

import redis
from redis.cluster import RedisCluster

from flask_sse._event.channel_name import CONTROL
from flask_sse._redis import lease_commands
from flask_sse._redis.cluster.errors import explain_connecting
from flask_sse._redis.cluster.nodes import ClusterNodes
from flask_sse._redis.cluster.topology import look
from flask_sse._redis.pubsub import LOST, open_connection
from flask_sse._redis.scripts import Scripts
from flask_sse._redis.url import Address


class _ChannelCommands(Protocol):
    """The methods used of a Redis client, with the types that it lacks."""

    def pubsub_channels(self, pattern: str) -> list[str | bytes]: ...
    def pubsub_numsub(self, *channels: str | bytes) -> list[tuple[str | bytes, int]]: ...


class Found(NamedTuple):
    """The channels that have listeners."""

    processes: Sequence[tuple[str, int]]
    """Each channel and the number of its subscriptions, busiest first."""
    problems: Sequence[str] = ()
    """Why the channels of some nodes are missing."""


def find_channels(source: object, pattern: str) -> Found:
    """Return the channels that have listeners.

    :param source: A client, or a cluster.
    :param pattern: Selects channels, with the syntax of Redis.
    :raises redis.RedisError: if Redis can't be reached or does not answer.
    """
    if isinstance(source, RedisCluster):
        source = ClusterNodes.of(source)
    if isinstance(source, ClusterNodes):
        return _in_cluster(source, pattern)
    asked = cast("_ChannelCommands", source)
    names = asked.pubsub_channels(pattern)
    return Found(_sort(asked.pubsub_numsub(*names) if names else []))


def count_members(scripts: Scripts, channels: Sequence[str]) -> dict[str, int]:
    """Return how many members channels have.

    :raises redis.RedisError: if Redis can't be reached, does not answer or refuses.
    """
    calls = [lease_commands.members(channel.encode()) for channel in channels]
    numbers: dict[str, int] = {}
    for channel, reply in zip(channels, scripts.run_all(calls) if calls else (), strict=True):
        if isinstance(reply, redis.ResponseError):
            raise lease_commands.explain(reply)
        if isinstance(reply, Exception):
            raise reply
        numbers[channel] = len(lease_commands.parse_members(reply))
    return numbers


def _in_cluster(nodes: ClusterNodes, pattern: str) -> Found:
    try:
        slots = look(nodes, (), suspects=(), doubted=())
    except LOST as error:
        raise explain_connecting(error, ", ".join(map(str, nodes.start))) from error
    found: list[tuple[str | bytes, int]] = []
    problems: list[str] = []
    for address in sorted(slots.primaries):
        try:
            found += _on_node(nodes, address, pattern)
        except LOST as error:
            problems.append(f"the channels of {address} are missing: {error}")
    return Found(_sort(found), problems)


def _on_node(nodes: ClusterNodes, address: Address, pattern: str) -> Iterator[tuple[bytes, int]]:
    connection = open_connection(nodes.client(address))

    def ask(*command: str | bytes) -> list[Any]:
        packed = connection.pack_commands([command])
        connection.send_packed_command(packed, check_health=False)
        return cast("list[Any]", connection.read_response())

    try:
        names = ask("PUBSUB", "SHARDCHANNELS", pattern)
        numbers = ask("PUBSUB", "SHARDNUMSUB", *names) if names else []
    finally:
        connection.disconnect()
    return zip(numbers[::2], numbers[1::2], strict=True)


def _sort(numbers: Sequence[tuple[str | bytes, int]]) -> list[tuple[str, int]]:
    # A client of the application may decode names.
    own = (CONTROL, CONTROL.decode())
    found = [
        (_text(name), int(number)) for name, number in numbers if int(number) and name not in own
    ]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode(errors="backslashreplace")
