"""The sources of events for ``flask sse listen``: Redis or servers, one or several at once.

Each source yields events with the names of their channels. It blocks the thread that iterates over
it, and prints a line when a channel is open. Sources run in daemon threads of their own; their
events arrive in the thread that iterates.
"""

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from queue import Empty, Queue
from typing import Final, NamedTuple, Protocol, TypeVar

import click

from flask_sse._cli.output import one_line
from flask_sse._event import channel_name
from flask_sse._event.client import follow
from flask_sse._event.message import Message
from flask_sse._hub.subscriber import Subscriber
from flask_sse._state import State
from flask_sse._streaming.feed import Feed
from flask_sse._streaming.merged_messages import listen_to_all
from flask_sse._streaming.messages import observer

Source = Iterator[tuple[str, Message]]
"""Events with the names of their channels."""


class ListeningBlueprint(Protocol):
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

    def ended(self, frame: bytes) -> None:
        """Print that the channel has ended."""
        click.echo(f"{one_line(self._channel)} has ended", err=True)


class _Announcements:
    """Prints when the subscriptions to several channels begin and end.

    :param names: The channels, with their names as the user has given them.
    """

    def __init__(self, names: Mapping[bytes, str]) -> None:
        self._names = names

    def begin(self, cursors: object) -> None:
        """Print that Redis has confirmed all of them."""
        for name in self._names.values():
            _announce(name)

    def end(self, name: bytes) -> None:
        """Print that a channel has ended."""
        click.echo(f"{one_line(self._names[name])} has ended", err=True)


def _announce(name: str) -> None:
    click.echo(f"listening to {one_line(name)}", err=True)


def subscribed(source: object, channels: Iterable[str]) -> Source:
    """Return the messages of all channels, from one subscription.

    The call needs an application context; the iteration does not.

    :param source: The blueprint's client, or the cluster in the URL.
    """
    state = State.current()
    settings = state.settings
    names = {channel_name.encode(channel): channel for channel in channels}
    feeds = {name: Feed(name, settings.retention(name) is not None) for name in names}

    hub, limit = state.hub(source), settings.max_pending
    heard = listen_to_all(hub, feeds, limit, state.provider, _Announcements(names))
    return ((names[channel], message) for channel, message, _ in heard)


def generated(blueprint: ListeningBlueprint, channels: Iterable[str]) -> list[Source]:
    """Return the messages of each channel, from a generator of the blueprint's own.

    The calls need an application context; the iterations do not.
    """
    return [_generated(blueprint.messages(channel), channel) for channel in dict.fromkeys(channels)]


def _generated(messages: Iterable[Message], channel: str) -> Source:
    # This sets it in the thread that iterates.
    observer.set(_Announcement(channel))
    for message in messages:
        yield channel, message


def streamed(url: str, channels: Sequence[str], headers: Mapping[str, str]) -> list[Source]:
    """Return the events of a stream for each channel, or of its URL if no channel is given."""
    urls = {name: channel_name.in_url(url, name) for name in channels} or {url: url}
    return [_followed(each, name, headers) for name, each in urls.items()]


def _followed(url: str, name: str, headers: Mapping[str, str]) -> Source:
    for event in follow(url, headers, opened=partial(_announce, url)):
        kind = None if event.type == "message" else event.type
        yield name, Message(event.data, kind, event.last_id or None)


_MOST_WAITING: Final = 64
_Item = TypeVar("_Item")


class _Ended(NamedTuple):
    """The end of an iterator, with the error, if there was one."""

    error: Exception | None


def merge(sources: Sequence[Iterable[_Item]], tick: float) -> Generator[_Item | None, None, None]:
    """Yield the items of all sources as they arrive, until all sources have ended.

    When the iteration ends early, a source ends with its next item.

    :param tick: Seconds after which `None` is yielded if nothing has arrived.
    :raises Exception: any exception that a source raises.
    """
    # At the end, each source can leave one more item.
    arrived: Queue[_Item | _Ended] = Queue(max(_MOST_WAITING, 2 * len(sources)))
    is_over = threading.Event()

    def drain(source: Iterable[_Item]) -> None:
        error = None
        try:
            for item in source:
                if is_over.is_set():
                    return
                arrived.put(item)
        except Exception as raised:  # noqa: BLE001 - raised again in the thread that iterates
            error = raised
        if not is_over.is_set():
            arrived.put(_Ended(error))

    for source in sources:
        threading.Thread(target=drain, args=(source,), daemon=True).start()
    try:
        yield from _take(arrived, len(sources), tick)
    finally:
        is_over.set()
        _empty(arrived)


def _take(arrived: "Queue[_Item | _Ended]", sources: int, tick: float) -> Iterator[_Item | None]:
    """Yield what arrives, until this many sources have ended."""
    left = sources
    while left:
        try:
            item = arrived.get(timeout=tick)
        except Empty:
            yield None
            continue
        if not isinstance(item, _Ended):
            yield item
        elif item.error is not None:
            raise item.error
        else:
            left -= 1


def _empty(arrived: "Queue[_Item | _Ended]") -> None:
    """Make room, so that no source waits any longer."""
    while True:
        try:
            arrived.get_nowait()
        except Empty:
            return
