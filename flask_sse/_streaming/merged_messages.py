"""The messages of several channels as one generator.

One thread uses it, and it blocks that thread.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from flask.json.provider import JSONProvider

from flask_sse._event import channel_name
from flask_sse._event.message import Message
from flask_sse._hub.batch import Batch, Opening
from flask_sse._hub.hub import Hub
from flask_sse._hub.service import CONFIRM_WITHIN
from flask_sse._hub.subscriber import Subscriber
from flask_sse._log.position import Cursor, Position
from flask_sse._streaming.feed import Feed
from flask_sse._streaming.messages import parse, raise_if_broken, raise_if_silent
from flask_sse._system.clock import monotonic
from flask_sse._system.gate import Gate


class Heard(NamedTuple):
    """A message and where it is from."""

    channel: bytes
    message: Message
    """Its id is that of its channel."""
    position: Position | None
    """Its position in the log of its channel; `None` if it is in no log."""


class Progress(Protocol):
    """Told how far the channels have come, beside their messages."""

    def begin(self, cursors: Mapping[bytes, Cursor]) -> None:
        """Note that Redis has confirmed all subscriptions.

        :param cursors: The position in each log after which the messages begin.
        """

    def end(self, name: bytes) -> None:
        """Note that a channel has ended, after its messages."""


class _Source(NamedTuple):
    """A channel and what waits for its listener."""

    channel: bytes
    subscriber: Subscriber


def listen_to_all(
    hub: Hub,
    feeds: Mapping[bytes, Feed],
    limit: int,
    provider: JSONProvider,
    progress: Progress,
) -> Generator[Heard, None, None]:
    """Yield the messages of all *feeds*, until all channels end, the server stops, or it is closed.

    The messages of each channel keep their order. None is yielded before all channels have begun.

    :param feeds: The feed of each channel.
    :param limit: Bytes of each channel that may wait to be fetched.
    :raises redis.RedisError: if a subscription fails.
    :raises BufferError: if more bytes of a channel waited than the limit allows.
    :raises LookupError: if a feed is strict and messages of its channel may be missing; the error
        names the channel.
    """
    # The thread waits for all of them at once.
    gate = Gate()
    sources = [_Source(name, feed.new_subscriber(limit, gate)) for name, feed in feeds.items()]
    try:
        for channel, subscriber in sources:
            hub.join(channel, subscriber)
        if _are_confirmed(sources):
            yield from _merge(sources, gate, provider, progress)
    finally:
        for source in sources:
            hub.leave(source.subscriber)


def _are_confirmed(sources: Sequence[_Source]) -> bool:
    """Wait until Redis has confirmed all subscriptions; return `False` if the server stops."""
    deadline = monotonic() + CONFIRM_WITHIN
    for source in sources:
        if not source.subscriber.wait_confirmed(max(0.0, deadline - monotonic())):
            _explain(source, raise_if_silent)
            return False
    return True


def _merge(
    sources: Sequence[_Source], gate: Gate, provider: JSONProvider, progress: Progress
) -> Iterator[Heard]:
    taken = _take(sources)
    progress.begin(_starts(taken))
    while taken:
        for source, batches in taken:
            if batches is None:
                _explain(source, raise_if_broken)
            for batch in batches or ():
                for payload in batch.payloads:
                    yield Heard(source.channel, *parse(payload, provider))
                if batch.end is not None:
                    progress.end(source.channel)
        taken = _wait([source for source, batches in taken if batches is not None], gate)


_Taken = Sequence[tuple[_Source, Sequence[Batch] | None]]
"""What has waited of each channel; `None` if nothing can follow."""


def _take(sources: Sequence[_Source]) -> _Taken:
    return [(source, source.subscriber.take(timeout=0)) for source in sources]


def _wait(sources: Sequence[_Source], gate: Gate) -> _Taken:
    """Wait until there is something of any channel, or the end of one."""
    while sources:
        # What has been yielded counts as waiting until this call.
        taken = _take(sources)
        if any(batches is None or batches for _, batches in taken):
            return taken
        gate.wait(lambda: any(source.subscriber.is_waiting() for source in sources), None)
    return ()


def _starts(taken: _Taken) -> dict[bytes, Cursor]:
    """Return where each log begins; its first batch says so."""
    return {
        source.channel: content.cursor
        for source, batches in taken
        for batch in batches or ()
        for content in batch.contents
        if isinstance(content, Opening)
    }


def _explain(source: _Source, raise_error: Callable[[Subscriber], None]) -> None:
    """Let a function raise an error, and add the channel if it is about events that are missing."""
    try:
        raise_error(source.subscriber)
    except LookupError as error:
        name = channel_name.for_log(source.channel)
        raise LookupError(f"channel {name}: {error}") from None
