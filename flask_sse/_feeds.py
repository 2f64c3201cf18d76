"""Where ``flask sse listen`` gets its events from: from Redis, or from a server.

Each feed blocks the thread that iterates over it. When it is open it says so.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import click

from flask_sse._event_source import follow, with_channel
from flask_sse._message import Message
from flask_sse._messages import observer
from flask_sse._subscriber import Subscriber
from flask_sse._terminal import one_line


class Listener(Protocol):
    """What is used of a blueprint."""

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Generate the messages of a channel."""
        ...


class _Announcement:
    """Says once that Redis has confirmed a subscription."""

    def __init__(self, channel: str) -> None:
        self._channel = channel

    def began(self, subscriber: Subscriber) -> None:
        """Note a subscription, which may still fail."""

    def confirmed(self) -> None:
        """Say that it is there."""
        _announce(self._channel)


def _announce(name: str) -> None:
    click.echo(f"listening to {one_line(name)}", err=True)


def subscribed(blueprint: Listener, channel: str) -> Iterator[Message]:
    """Return the messages of a channel, from Redis.

    It takes an application's context to call this, and none to iterate.
    """
    messages = blueprint.messages(channel)

    def announced() -> Iterator[Message]:
        # Of the thread in which this runs.
        observer.set(_Announcement(channel))
        yield from messages

    return announced()


def streamed(
    url: str, channels: Sequence[str], headers: Mapping[str, str]
) -> dict[str, Iterator[Message]]:
    """Return the events of a stream, by its channels or, where none is named, by its address."""
    if not channels:
        return {url: _followed(url, headers)}
    return {name: _followed(with_channel(url, name), headers) for name in channels}


def _followed(url: str, headers: Mapping[str, str]) -> Iterator[Message]:
    for event in follow(url, headers, opened=partial(_announce, url)):
        kind = None if event.type == "message" else event.type
        yield Message(event.data, kind, event.id or None)
