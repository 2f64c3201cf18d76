"""The members of one channel in this process, and what Redis knows of them.

Only the thread of a registrar uses it. Nothing blocks, and no clock is read.
"""

import math
import random
from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

from flask_sse._redis.lease_commands import Change, Lease, Outcome

_MOST_CHANGES: Final = 500
"""How many changes are sent together, while Redis does nothing else."""


_ALL_RENEWED: Final = 1.2
"""Renewals after which all processes have renewed their leases."""


class Times(NamedTuple):
    """Seconds."""

    lease: float = 60.0
    """For which a lease is valid, so that the members of a process that has died are gone."""
    renewal: float = 20.0
    """After which it is renewed."""
    absence: float = 3.0
    """After which a client without streams has left."""
    farewell: float = 20.0
    """For which the lease of a process that stops is valid: its clients come back elsewhere."""
    reconnection: float = 10.0
    """The same as the absence if the server has ended the stream: browsers reconnect later then."""


class _Member:
    """A client with streams in this process, or with an absence that is not over."""

    __slots__ = ("absent_until", "is_leaving", "is_new", "is_sent", "is_unclear", "streams")

    def __init__(self, *, is_new: bool) -> None:
        self.streams = 0
        self.is_new = is_new
        """Whether others must hear that it has come, or left."""
        self.is_sent = False
        """Whether Redis may know it."""
        self.is_leaving = False
        """Whether it is to be removed, or is removed already."""
        self.is_unclear = False
        """Whether it is removed, but may have streams in other processes, which Redis has lost."""
        self.absent_until: float | None = None

    @property
    def shown_streams(self) -> int:
        """The number of streams that others see; a client that may come back has one."""
        return 0 if self.is_leaving else max(self.streams, 1)


class Room:
    """The members of one channel in this process.

    :param name: The channel.
    """

    def __init__(self, name: bytes, times: Times) -> None:
        self.name = name
        self.due = math.inf
        """The time for which its registrar has noted it."""
        self.needs_comparison = False
        """Whether Redis may know members that have left, since it has lost changes."""
        self._times = times
        self._members: dict[str, _Member] = {}
        self._changed: dict[str, None] = {}
        self._absent: list[tuple[float, str]] = []
        """A heap of the ends of absences, some of which do not count any more."""
        self._unclear: deque[tuple[float, str]] = deque()
        self._revision = 0
        self._is_unchecked = False
        self._sent: dict[str, int] = {}
        self._renew_at = math.inf
        self._look_at = math.inf
        self._not_before = -math.inf

    @property
    def is_empty(self) -> bool:
        """Whether no members are left, and Redis knows that."""
        return not self._members

    def enter(self, client: str) -> None:
        """Note one more stream of a client."""
        member = self._members.get(client)
        if member is None:
            member = self._members[client] = _Member(is_new=True)
        elif member.is_leaving:
            # If it has not been removed yet, Redis sees that it was there before.
            member.is_new = not member.is_unclear
            member.is_leaving = member.is_unclear = False
        member.streams += 1
        member.absent_until = None
        self._changed[client] = None

    def leave(self, client: str, now: float, *, is_expected: bool) -> None:
        """Note one stream less of a client.

        :param is_expected: Whether the client is expected back, since the server has ended it.
        """
        member = self._members.get(client)
        if member is None or not member.streams:
            return
        member.streams -= 1
        if member.streams:
            self._changed[client] = None
        else:
            absence = self._times.reconnection if is_expected else self._times.absence
            member.absent_until = now + absence
            heappush(self._absent, (member.absent_until, client))

    def next_due(self, now: float) -> float:
        """Return the time at which there is something to do."""
        absence_ends = self._absent[0][0] if self._absent else math.inf
        is_clear = self._unclear[0][0] if self._unclear else math.inf
        due = min(absence_ends, is_clear, self._renew_at, self._look_at)
        if self._changed or self.needs_comparison:
            due = now
        return max(due, self._not_before)

    def end_absences(self, now: float, *, at_once: bool = False) -> None:
        """Note which clients have left.

        :param at_once: Don't wait for them to come back.
        """
        while self._absent and (at_once or self._absent[0][0] <= now):
            until, client = heappop(self._absent)
            member = self._members.get(client)
            if member is None or member.absent_until != until or member.streams:
                continue
            if member.is_sent:
                member.is_leaving = True
                member.is_new = False
                self._changed[client] = None
            else:
                del self._members[client]
                self._changed.pop(client, None)
        while self._unclear and (at_once or self._unclear[0][0] <= now):
            _, client = self._unclear.popleft()
            member = self._members.get(client)
            if member is not None and member.is_unclear:
                member.is_unclear = False
                member.is_new = True
                self._changed[client] = None

    def has_news(self, now: float) -> bool:
        """Whether Redis must be told something."""
        return bool(self._changed) or min(self._renew_at, self._look_at) <= now

    def news(self) -> Lease:
        """Return what Redis must be told, at least that this process is alive."""
        self._sent = {}
        changes: list[Change] = []
        for client in [*self._changed]:
            member = self._members[client]
            if not member.streams and not member.is_sent:
                # It has left at once, and may come back.
                del self._changed[client]
                continue
            self._sent[client] = member.shown_streams
            changes.append(Change(_encode(client), member.shown_streams, member.is_new))
            member.is_sent = True
            if len(changes) == _MOST_CHANGES:
                break
        is_last = len(changes) == len(self._members) and not any(one.streams for one in changes)
        return self._lease(0.0 if is_last else self._times.lease, changes)

    def farewell(self) -> Lease:
        """Return what Redis must be told when the process stops."""
        self._sent = {}
        return self._lease(self._times.farewell, ())

    def answered(self, outcome: Outcome, now: float) -> None:
        """Note that Redis has been told."""
        self._revision += 1
        self._is_unchecked = False
        for client, streams in self._sent.items():
            member = self._members[client]
            member.is_new = False
            del self._changed[client]
            if streams:
                continue
            if outcome.state in ("missing", "stale") and _encode(client) not in outcome.left:
                # Until all processes have told Redis everything again, nobody knows.
                member.is_unclear = True
                self._unclear.append((now + _ALL_RENEWED * self._times.renewal, client))
            else:
                del self._members[client]
        if outcome.state in ("missing", "stale", "expired"):
            self._repair(outcome.state)
        if self.is_empty:
            self._renew_at = self._look_at = math.inf
            return
        self._renew_at = now + self._times.renewal * random.uniform(0.8, 1)
        self._look_at = math.inf
        if outcome.next_end is not None and now + outcome.next_end < self._renew_at:
            # Not all processes look at the same time, and the first one tells all.
            spread = self._times.lease * random.uniform(0.002, 0.01)
            self._look_at = now + outcome.next_end + spread

    def compare(self, known: Iterable[str]) -> None:
        """Note which members of this process Redis knows, to remove those that have left."""
        self.needs_comparison = False
        for client in known:
            if client not in self._members:
                member = self._members[client] = _Member(is_new=False)
                member.is_sent = member.is_leaving = True
                self._changed[client] = None

    def delay(self, until: float) -> None:
        """Note that Redis has not been told, and when to try again."""
        self._not_before = until
        self._look_at = min(self._look_at, until)

    def _lease(self, seconds: float, changes: Sequence[Change]) -> Lease:
        before = "" if self._is_unchecked else str(self._revision)
        return Lease(round(seconds * 1000), before, str(self._revision + 1), changes)

    def _repair(self, state: str) -> None:
        """Tell Redis about all members, since it does not know all of them."""
        self._is_unchecked = True
        self.needs_comparison = state == "stale"
        for client, member in self._members.items():
            if member.is_unclear:
                continue
            self._changed[client] = None
            # Others have published that they have left.
            member.is_new = member.is_new or (state == "expired" and not member.is_leaving)


def _encode(client: str) -> bytes:
    return client.encode(errors="surrogatepass")
