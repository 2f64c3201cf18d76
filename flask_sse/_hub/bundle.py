"""The clients that listen to the same channels, and share the bytes of each event.

A client is on a journey until it is live in all channels, and again when it does not take the
events as they come. In between, it is live in the bundle, where it costs as much as in a channel.

Only the hub's loop uses it. Nothing blocks except the `pause` function that is passed in.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import cast

from flask_sse._hub import pieces
from flask_sse._hub.batch import Batch
from flask_sse._hub.channel import Channel
from flask_sse._hub.connection import Connection
from flask_sse._hub.group import Group
from flask_sse._hub.journey import Journey, Leg
from flask_sse._hub.listener import Client, Listener
from flask_sse._hub.parts import Part
from flask_sse._hub.pieces import Piece, Slot
from flask_sse._log.composite_id import Encoder, Ended, Marks, parse_entry
from flask_sse._log.position import Cursor


class Bundle(Group):
    """The clients of several channels.

    :param channels: The channels, which send their batches here until :meth:`close`.
    """

    __slots__ = (
        "_is_shared",
        "_journeys",
        "_logged",
        "_slots",
        "_sole",
        "channels",
        "keeps_ids",
        "parts",
    )

    def __init__(self, channels: Sequence[Channel]) -> None:
        super().__init__()
        self.channels = channels
        self._logged = [channel.name for channel in channels if channel.is_logged]
        self.keeps_ids = not self._logged
        """Whether events on channels without history keep their ids."""
        encoder = Encoder(self._logged)
        self.parts = [encoder.salt, *encoder.keys]
        """The parts of the last id: the salt, and an entry for each channel with history."""
        # The only live client, if that is a connection.
        self._sole: Connection | None = None
        # Whether there are other live clients.
        self._is_shared = False
        self._journeys: dict[Listener, Journey] = {}
        self._slots: list[Slot] = []
        for channel in channels:
            index = 1 + self._logged.index(channel.name) if channel.is_logged else 0
            slot = Slot(channel.name, index, self.parts[index])
            self._slots.append(slot)
            channel.parts.add(Part(self, slot))

    def __bool__(self) -> bool:
        return bool(self._journeys) or super().__bool__()

    def __iter__(self) -> Iterator[Listener]:
        """Iterate over a snapshot of the clients."""
        return iter([*super().__iter__(), *self._journeys])

    @property
    def size(self) -> int:
        """How many clients are live."""
        return len(self._subscribers) + len(self._lagging) + sum(map(len, self._live))

    def close(self) -> None:
        """Get nothing from the channels any more."""
        for channel, slot in zip(self.channels, self._slots, strict=True):
            channel.parts.discard(Part(self, slot))

    # The clients

    def add(self, client: Client) -> None:
        """Add a client, which waits until all channels are ready."""
        marks: Marks = client.marks or [None] * len(self._logged)
        parts = [*self.parts[:1], *[slot.key for slot in self._slots if slot.place]]
        known = [None, *marks]
        journey = Journey(client, parts, self._arrive)
        journey.legs = [
            Leg(journey, channel, slot, mark)
            for channel, slot in zip(self.channels, self._slots, strict=True)
            if not isinstance(mark := known[slot.place], Ended)
        ]
        self._journeys[client] = journey
        for leg in journey.legs:
            leg.channel.add(leg)

    def place(self, connection: Connection) -> Sequence[Listener]:
        """Continue with a connection that has taken something, or has not taken everything."""
        if connection in self._journeys:
            return () if connection.is_lagging else self.refill(connection)
        if connection.is_lagging and not self.keeps_ids:
            self._depart(connection, self.parts)
        else:
            super().place(connection)
            self._regroup()
        return ()

    def refill(self, listener: Listener) -> Sequence[Listener]:
        """Continue with a client that has taken everything."""
        journey = self._journeys.get(listener)
        return () if journey is None or journey.refill() else [listener]

    def discard(self, listener: Listener) -> None:
        """Forget a client, if it is known."""
        self._forget(listener)
        super().discard(listener)
        self._regroup()

    def _forget(self, listener: Listener) -> None:
        journey = self._journeys.pop(listener, None)
        for leg in () if journey is None else journey.legs:
            leg.channel.discard(leg)

    def _arrive(self, journey: Journey) -> None:
        """Let a client share the bytes of the others, if it is where they are."""
        if journey.client not in self._journeys or len(journey.legs) < len(self.channels):
            return
        if self.size and self.parts != journey.parts:
            return
        self.parts = journey.parts
        self._forget(journey.client)
        journey.client.is_behind = False
        self._go_live(journey.client)
        self._regroup()

    def _depart(self, client: Client, parts: Sequence[bytes]) -> None:
        """Let a client go on alone, without the channels that have ended.

        :param parts: The parts of the last id that it has been sent.
        """
        super().discard(client)
        self._regroup()
        journey = self._journeys[client] = Journey(client, [*parts], self._arrive)
        # An id is all that is needed to continue.
        cursors = [None, *map(parse_entry, parts[1:])]
        journey.legs = [
            Leg(journey, channel, slot, None, is_open=True)
            for channel, slot in zip(self.channels, self._slots, strict=True)
            if not isinstance(cursors[slot.place], Ended)
        ]
        for leg in journey.legs:
            leg.channel.add_live(leg, cast("Cursor | None", cursors[leg.slot.place]))

    def _regroup(self) -> None:
        """Tell the channels whether there is one live client, or more."""
        before, sole = self._sole, None
        connections = [one for live in self._live if len(live) == 1 for one in live.values()]
        if len(connections) == self.size == 1:
            [sole] = connections
        is_shared = self.size > 0 and sole is None
        if sole is before and is_shared == self._is_shared:
            return
        self._sole, self._is_shared = sole, is_shared
        for channel, slot in zip(self.channels, self._slots, strict=True):
            part = Part(self, slot)
            if before is not None:
                channel.parts.discard_sole(part, before)
            if sole is not None:
                channel.parts.add_sole(part, sole)
            channel.parts.share(part, is_shared=is_shared)

    # The events of a channel

    def end(self, gone: Collection[Listener]) -> Sequence[Listener]:
        """Let the clients that have got a channel's end go on without it.

        :param gone: The clients that must be dropped anyhow.
        """
        for client in [listener.whole for listener in super().__iter__()]:
            if client not in gone:
                # If it was the last channel, there are no legs left.
                self._depart(client, self.parts)
        lost: list[Listener] = []
        for journey in [*self._journeys.values()]:
            client = journey.client
            if client in gone:
                continue
            if not (journey.refill() if journey.legs else client.note_end()):
                lost.append(client)
        return lost

    def count(self, batch: Batch, size: int, *, chunked: bool) -> None:
        """Note that the only client, which must be counted, is sent *size* bytes."""
        self._events += len(batch.payloads)
        self._sizes[chunked] += size

    def keep_rest(self, data: bytes, sent: int) -> Sequence[Listener]:
        """Keep what the socket of the only client has not accepted."""
        connection = self._sole
        assert connection is not None
        descriptor = connection.descriptor
        return self._keep_rests({descriptor: connection}, data, [(descriptor, sent)])

    def send(
        self, slot: Slot, batch: Batch, some: Sequence[Piece], pause: Callable[[], None]
    ) -> Sequence[Listener]:
        """Send a batch of a channel to each live client; return those that must be dropped."""
        before = [*self.parts]
        if some:
            batch = pieces.stamp(some, self.parts, slot)
        elif not self.keeps_ids:
            batch = pieces.without_ids(batch, slot)
        lost = self._send_to_connections(batch, pause) if batch.frames else []
        for client in [one.whole for one in self._subscribers]:
            if slot.place and not client.has_room(batch):
                self._depart(client, before)
            elif not client.push(batch):
                lost.append(client)
        return lost
