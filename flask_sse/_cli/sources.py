"""The sources of events for ``flask sse listen``: Redis or servers, one or several at once.

Each source blocks the thread that iterates over it, and prints a line when it is open. Several
run in daemon threads of their own; their events arrive in the thread that iterates.
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
from flask_sse._streaming.messages import observer


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


def _announce(name: str) -> None:
    click.echo(f"listening to {one_line(name)}", err=True)


def subscribed(blueprint: ListeningBlueprint, channel: str) -> Iterator[Message]:
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
    return {name: _followed(channel_name.in_url(url, name), headers) for name in channels}


def _followed(url: str, headers: Mapping[str, str]) -> Iterator[Message]:
    for event in follow(url, headers, opened=partial(_announce, url)):
        kind = None if event.type == "message" else event.type
        yield Message(event.data, kind, event.last_id or None)


_MOST_WAITING: Final = 64
_Item = TypeVar("_Item")


class _Ended(NamedTuple):
    """The end of an iterator, with the error, if there was one."""

    error: Exception | None


def merge(
    sources: Mapping[str, Iterable[_Item]], tick: float
) -> Generator[tuple[str, _Item] | None, None, None]:
    """Yield each item with the name of its source, until all sources have ended.

    When the iteration ends early, a source ends with its next item.

    :param tick: Seconds after which `None` is yielded if nothing has arrived.
    :raises Exception: any exception that a source raises.
    """
    # At the end, each source can leave one more item.
    arrived: Queue[tuple[str, _Item] | _Ended] = Queue(max(_MOST_WAITING, 2 * len(sources)))
    is_over = threading.Event()

    def drain(name: str, source: Iterable[_Item]) -> None:
        error = None
        try:
            for item in source:
                if is_over.is_set():
                    return
                arrived.put((name, item))
        except Exception as raised:  # noqa: BLE001 - raised again in the thread that iterates
            error = raised
        if not is_over.is_set():
            arrived.put(_Ended(error))

    for name, source in sources.items():
        threading.Thread(target=drain, args=(name, source), daemon=True).start()
    try:
        yield from _take(arrived, len(sources), tick)
    finally:
        is_over.set()
        _empty(arrived)


def _take(
    arrived: "Queue[tuple[str, _Item] | _Ended]", sources: int, tick: float
) -> Iterator[tuple[str, _Item] | None]:
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


def _empty(arrived: "Queue[tuple[str, _Item] | _Ended]") -> None:
    """Make room, so that no source waits any longer."""
    while True:
        try:
            arrived.get_nowait()
        except Empty:
            return
