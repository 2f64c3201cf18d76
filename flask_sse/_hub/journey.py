"""One client of several channels, until it is live in all of them.

It has a leg in each channel. For the channel, a leg is a listener like any other: it waits for the
subscription, it catches up page by page, and it gets live events. All this goes on to the one
client, and the id of each event says where the client is in all channels. An id never names an
event that this client has not been sent.

Only the hub's loop uses it. Nothing blocks.
"""

import json
from collections.abc import Callable, Sequence

from flask_sse._event import channel_name
from flask_sse._hub import pieces
from flask_sse._hub.batch import Batch, Opening
from flask_sse._hub.channel import Channel
from flask_sse._hub.listener import Client
from flask_sse._hub.pieces import Slot
from flask_sse._log.composite_id import value
from flask_sse._log.position import UNKNOWN, Cursor


class Journey:
    """The legs of one client.

    :param parts: The parts of the client's last id: the salt, and an entry for each channel that
        has history.
    :param arrive: Called when the client is live in all channels and has taken everything.
    """

    __slots__ = ("_arrive", "_next", "client", "is_open", "keeps_ids", "legs", "parts")

    def __init__(
        self, client: Client, parts: list[bytes], arrive: Callable[["Journey"], None]
    ) -> None:
        self.client = client
        self.parts = parts
        self.keeps_ids = len(parts) == 1
        """Whether events on channels without history keep their ids."""
        self.is_open = client.is_open
        """Whether the stream has begun."""
        self.legs: Sequence[Leg] = ()
        self._arrive = arrive
        # The leg that may get a page first, when the client has taken everything.
        self._next = 0
        client.is_behind = True

    def begin(self, leg: "Leg") -> bool:
        """Begin the stream, if all channels are ready; return `False` if the client is gone.

        :param leg: The leg whose channel has become ready, and which continues by itself.
        """
        if not all(one.is_open for one in self.legs):
            return True
        self.is_open = True
        if not (self.client.open() if self.keeps_ids else self.client.give(self._opening())):
            return False
        others = [one for one in self.legs if one is not leg]
        return not any(one.channel.refill(one) for one in others if one.is_behind)

    def refill(self) -> bool:
        """Continue with a client that has taken everything; return `False` if it is gone.

        The channels give a page in turn.
        """
        for leg in [*self.legs[self._next :], *self.legs[: self._next]]:
            if not leg.is_behind:
                continue
            if leg.channel.refill(leg):
                return False
            if not self.client.is_ready:
                self._next = self.legs.index(leg) + 1 if leg in self.legs else 0
                return True
        self.look()
        return True

    def end(self, leg: "Leg") -> bool:
        """Go on without a leg whose channel has ended; return `False` if it was the last one."""
        self.legs = [one for one in self.legs if one is not leg]
        return bool(self.legs) or self.client.note_end()

    def look(self) -> None:
        """End the journey, if the client has arrived."""
        if self.is_open and not self.client.is_lagging and all(leg.is_live for leg in self.legs):
            self._arrive(self)

    def _opening(self) -> Batch:
        """Return ``sse.open``, and the resets of channels whose logs do not continue."""
        recovered = {channel_name.to_text(leg.slot.name): leg.recovered for leg in self.legs}
        known = [one for one in recovered.values() if one is not None]
        data = json.dumps({"channels": recovered, "recovered": all(known)})
        frames = b"event:sse.open\ndata:%b\nid:%b\n\n" % (data.encode(), b"-".join(self.parts))
        return Batch((), frames + b"".join([leg.take_reset() for leg in self.legs]))


class Leg:
    """The part of a client that listens to one channel.

    :param resume_after: Where the client is in the channel, as far as it has said so.
    :param is_open: Whether the stream has begun.
    """

    __slots__ = (
        "_has_joined",
        "_journey",
        "_reset",
        "channel",
        "is_behind",
        "is_open",
        "recovered",
        "resume_after",
        "slot",
    )

    def __init__(
        self,
        journey: Journey,
        channel: Channel,
        slot: Slot,
        resume_after: Cursor | None,
        *,
        is_open: bool = False,
    ) -> None:
        self.channel = channel
        self.slot = slot
        self.resume_after = resume_after
        self.is_behind = False
        self.is_open = is_open
        """Whether the channel is ready to begin, or has begun."""
        self.recovered: bool | None = None
        """Whether the client has missed nothing; `None` if the channel has no history."""
        self._journey = journey
        self._has_joined = False
        self._reset: Batch | None = None

    @property
    def whole(self) -> Client:
        """The client."""
        return self._journey.client

    @property
    def descriptor(self) -> int:
        """Always -1: the client has the descriptor."""
        return -1

    @property
    def is_live(self) -> bool:
        """Whether the client gets each event of the channel."""
        return self._has_joined and not self.is_behind

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be given to it now."""
        return self.whole.is_blocked or (self.is_open and not self._journey.is_open)

    @property
    def is_ready(self) -> bool:
        """Whether the client has taken everything, and may get a page."""
        return not self.is_open or (self._journey.is_open and self.whole.is_ready)

    def open(self) -> bool:
        """Note that a channel without history is ready; return `False` if the client is gone."""
        self.is_open = True
        return self._journey.begin(self)

    def give(self, batch: Batch) -> bool:
        """Note that a log has been found, or send events; return `False` if the client is gone."""
        if self.is_open:
            return self.whole.give(self._stamped(batch))
        opening, *others = batch.contents
        assert isinstance(opening, Opening)
        # A client that loses its connection before the reset must get it the next time.
        cursor = UNKNOWN if others and self.resume_after == UNKNOWN else opening.cursor
        self._journey.parts[self.slot.place] = self.slot.key + value(cursor)
        self.recovered = opening.recovered
        self._reset = batch if others else None
        self.is_open = True
        return self._journey.begin(self)

    def offer(self, batch: Batch) -> bool:
        """Send live events, or fall behind; return `False` if the client is lost."""
        if not self.channel.is_logged:
            # Before the stream begins, its client has not subscribed yet.
            return not self._journey.is_open or self.whole.push(
                batch if self._journey.keeps_ids else pieces.without_ids(batch, self.slot)
            )
        if not self._journey.is_open or not self.whole.has_room(batch):
            self.is_behind = True
            return True
        return self.give(batch)

    def note_gap(self, reason: str) -> bool:
        """Prepare for a gap; return `False` if the stream has ended for this reason."""
        return self.whole.note_gap(f"channel {channel_name.for_log(self.slot.name)}: {reason}")

    def note_end(self) -> bool:
        """Note that the channel has ended; return `False` if the stream has ended with it."""
        return self._journey.end(self)

    def note_live(self) -> None:
        """Note that the channel offers it each batch from now on."""
        self._has_joined = True
        self._journey.look()

    def take_reset(self) -> bytes:
        """Return the reset that follows the beginning of the stream, if there is one."""
        batch, self._reset = self._reset, None
        return b"" if batch is None else self._stamped(batch).frames

    def _stamped(self, batch: Batch) -> Batch:
        return pieces.stamp(pieces.cut(batch), self._journey.parts, self.slot)
