"""A channel's listeners, and how a batch of events reaches them all.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from flask_sse._hub.batch import Batch
from flask_sse._hub.group import AT_ONCE, Group
from flask_sse._hub.listener import Listener
from flask_sse._hub.parts import Parts
from flask_sse._log.position import Cursor
from flask_sse._system.clock import monotonic


class Report(Protocol):
    """Called when a batch has been sent to some listeners of a channel."""

    def __call__(
        self, channel: "Channel", batch: Batch, listeners: int, *, replayed: bool
    ) -> None: ...


class Channel(Group):
    """The listeners of a channel.

    :param name: The channel's name.
    :param is_logged: Whether it has history.
    """

    __slots__ = ("_parts", "_waiting", "is_logged", "name", "report", "sent")

    def __init__(self, name: bytes, *, is_logged: bool = False) -> None:
        super().__init__()
        self.name = name
        self.is_logged = is_logged
        self.report: Report | None = None
        """Called after each batch."""
        self.sent = monotonic()
        """When its listeners last got a batch."""
        self._waiting: dict[Listener, None] = {}
        # Most channels of the documented view have one client, and belong to no bundle.
        self._parts: Parts | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting or self._parts) or super().__bool__()

    def __iter__(self) -> Iterator[Listener]:
        """Iterate over a snapshot of the clients."""
        own = [*self._waiting, *super().__iter__()]
        # The others are parts of the clients of a bundle.
        shared = self._parts.clients() if self._parts else ()
        return iter([*(one for one in own if one.whole is one), *shared])

    @property
    def channels(self) -> "Sequence[Channel]":
        """Itself."""
        return (self,)

    @property
    def parts(self) -> Parts:
        """The bundles that it belongs to, which get each batch, too."""
        if self._parts is None:
            self._parts = Parts(is_logged=self.is_logged)
        return self._parts

    def add(self, listener: Listener) -> None:
        """Add a listener, which waits until the subscription is confirmed."""
        self._waiting[listener] = None

    def add_live(self, listener: Listener, cursor: Cursor | None) -> None:
        """Add a listener whose stream has begun.

        :param cursor: Where it is, on a channel with history.
        """
        self._go_live(listener)

    def begin(self) -> list[Listener]:
        """Continue after Redis has confirmed a new subscription.

        :return: the listeners that must be dropped, like the other methods here.
        """
        return self.confirm()

    def confirm(self) -> list[Listener]:
        """Continue with the listeners that have waited for the subscription."""
        waiting, self._waiting = self._waiting, {}
        lost: list[Listener] = []
        for listener in waiting:
            if not listener.open():
                lost.append(listener)
            self._go_live(listener)
        return lost

    def discard(self, listener: Listener) -> None:
        """Forget a listener, if it is known."""
        self._waiting.pop(listener, None)
        super().discard(listener)

    def send(self, batch: Batch, pause: Callable[[], None]) -> list[Listener]:
        """Send a batch to all listeners.

        :param pause: Called now and then, to let others run.
        """
        self.sent = batch.time
        number = len(self._subscribers) + len(self._lagging) + sum(map(len, self._live))
        lost = self._send_to_connections(batch, pause)
        for count, subscriber in enumerate([*self._subscribers], 1):
            if not subscriber.offer(batch):
                lost.append(subscriber)
            if count % AT_ONCE == 0:
                pause()
        # They come last, since a client may leave its bundle and be a listener from then on.
        if self._parts:
            lost += self._parts.send(batch, pause)
            number += self._parts.reached
        if self.report is not None:
            self.report(self, batch, number, replayed=False)
        return lost

    def _go_live(self, listener: Listener) -> None:
        super()._go_live(listener)
        listener.note_live()
