"""The sources of events for ``flask sse listen``: Redis, or a server.

Each feed blocks the thread that iterates over it. It prints a line when it is open.
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
    """The part of a blueprint that is used here."""

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Generate the messages of a channel."""
        ...


class _Announcement:
    """Prints once that Redis has confirmed a subscription."""

    def __init__(self, channel: str) -> None:
        self._channel = channel

    def began(self, subscriber: Subscriber) -> None:
        """Note a subscription, which may still fail."""

    def confirmed(self) -> None:
        """Print that it is confirmed."""
        _announce(self._channel)


def _announce(name: str) -> None:
    click.echo(f"listening to {one_line(name)}", err=True)


def subscribed(blueprint: Listener, channel: str) -> Iterator[Message]:
    """Return the messages of a channel, from Redis.

    The call needs an application context; the iteration does not.
    """
    messages = blueprint.messages(channel)

    def announced() -> Iterator[Message]:
        # This sets it in the thread that iterates.
        observer.set(_Announcement(channel))
        yield from messages

    return announced()


def streamed(
    url: str, channels: Sequence[str], headers: Mapping[str, str]
) -> dict[str, Iterator[Message]]:
    """Return the events of a stream, by channel, or by its URL if no channel is given."""
    if not channels:
        return {url: _followed(url, headers)}
    return {name: _followed(with_channel(url, name), headers) for name in channels}


def _followed(url: str, headers: Mapping[str, str]) -> Iterator[Message]:
    for event in follow(url, headers, opened=partial(_announce, url)):
        kind = None if event.type == "message" else event.type
        yield Message(event.data, kind, event.id or None)
