"""The streams of clients with a name, and the channel that says which of them must end.

Only the hub's loop uses it. It reads no clock, and nothing blocks.

A revocation that is missed would leave a stream open. So such a stream begins only while the
control channel is subscribed, and after a gap in this subscription all of them end, so that
their clients come back and are checked again.
"""

import logging
import random
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Final

from flask_sse._callbacks.stream_signals import DISCONNECT, REDIS
from flask_sse._event.channel_name import CONTROL
from flask_sse._event.revocation import Identity, Revocation
from flask_sse._hub.complaints import Complaints
from flask_sse._hub.deadlines import Deadlines
from flask_sse._hub.listener import Client
from flask_sse._redis.cluster.errors import has_code
from flask_sse._redis.revoking import RULE

_log: Final = logging.getLogger("flask_sse")

_CHECK_WITHIN: Final = 10.0
"""Seconds over which streams end that must be checked again."""
_REMEMBER_FOR: Final = 10.0
"""Seconds for which a revocation applies to streams that were let in before it."""
_CONFIRM_WITHIN: Final = 2.0
"""Seconds from when a stream is let in to the subscription of the control channel.

If it takes longer, the stream must be checked again: a revocation may have been missed.
"""
_MISS_FOR: Final = 60.0
"""Seconds for which the channel may be missing, although other events arrive.

In a cluster, its node may be out of reach for this process only. A failover takes less time.
"""


class Control:
    """The streams that revocations can end.

    :param deadlines: Ends them.
    :param complaints: Gets what is wrong with revocations.
    :param note_change: Called with the name of the channel when it may have to be subscribed.
    """

    def __init__(
        self, deadlines: Deadlines, complaints: Complaints, note_change: Callable[[bytes], None]
    ) -> None:
        self._deadlines = deadlines
        self._complaints = complaints
        self._note_change = note_change
        self.is_wanted = False
        """Whether the channel must be subscribed: from the first stream until the loop ends."""
        self._waiting: dict[Client, Identity] = {}
        self._served: dict[Client, Identity] = {}
        self._confirmed_at = 0.0
        self._missed_since = 0.0
        self._recent: deque[tuple[float, Revocation]] = deque()
        self._has_complained = False

    @property
    def is_awaited(self) -> bool:
        """Whether streams wait for the subscription."""
        return bool(self._waiting)

    def wait(self, client: Client, identity: Identity) -> None:
        """Make a stream wait until the subscription is confirmed or refused."""
        self._waiting[client] = identity
        self.is_wanted = True
        self._note_change(CONTROL)

    def serve(self, client: Client, identity: Identity, now: float) -> None:
        """Note a stream that begins while the subscription is confirmed."""
        self._served[client] = identity
        recent = self._since(identity.since)
        if any(one.matches(identity.name, client.channel) for one in recent):
            self._deadlines.add(now, client, DISCONNECT)
        elif identity.since < max(self._confirmed_at - _CONFIRM_WITHIN, now - _REMEMBER_FOR):
            self._check_again(client, now)

    def discard(self, client: Client) -> None:
        """Forget a stream, if it is known."""
        self._waiting.pop(client, None)
        self._served.pop(client, None)

    def keep_time(self, now: float, *, is_missing: bool) -> None:
        """End the streams that could not be revoked for too long.

        :param is_missing: Whether other events arrive, but no revocations.
        """
        if not is_missing or not self._served:
            self._missed_since = now
        elif now - self._missed_since > _MISS_FOR:
            self._missed_since = now
            for client in self._served:
                self._check_again(client, now)

    def take_waiting(self) -> list[Client]:
        """Return the streams that wait, and forget them."""
        waiting, self._waiting = self._waiting, {}
        return [*waiting]

    # What Redis says

    def confirmed(self, now: float) -> list[Client]:
        """Begin anew after Redis has confirmed a subscription; return the streams that may begin.

        Streams from before it may have missed a revocation, and after an earlier subscription, so
        may those that have waited.
        """
        missed = [*self._served, *(self._waiting if self._confirmed_at else ())]
        self._confirmed_at = now
        self._has_complained = False
        for client, identity in self._waiting.items():
            self.serve(client, identity, now)
        for client in missed:
            self._check_again(client, now)
        return self.take_waiting()

    def refused(self, error: Exception, now: float) -> list[Client]:
        """Note that Redis refuses the subscription; return the streams that can't begin."""
        if not self._has_complained:
            self._has_complained = True
            remedy = f"; run {RULE}" if has_code(error, "NOPERM") else ""
            _log.warning("streams with a client are refused: %s%s", error, remedy)
        for client in self._served:
            self._check_again(client, now)
        self.is_wanted = False
        self._note_change(CONTROL)
        return self.take_waiting()

    def arrived(self, payload: bytes, now: float) -> None:
        """Process a revocation."""
        try:
            revocation = Revocation.from_payload(payload)
        except ValueError as error:
            self._complaints.malformed(CONTROL, error)
            return
        while self._recent and self._recent[0][0] < now - _REMEMBER_FOR:
            self._recent.popleft()
        self._recent.append((now, revocation))
        for client, identity in self._served.items():
            if revocation.matches(identity.name, client.channel):
                self._deadlines.add(now, client, DISCONNECT)

    def _since(self, time: float) -> Iterator[Revocation]:
        """Yield the revocations from a time on."""
        for at, revocation in reversed(self._recent):
            if at < time:
                return
            yield revocation

    def _check_again(self, client: Client, now: float) -> None:
        """End a stream soon, but not all of them at the same time."""
        self._deadlines.add(now + random.uniform(0, _CHECK_WITHIN), client, REDIS)


class Wanted(Collection[bytes]):
    """The channels that must be subscribed, including the control channel if it is wanted.

    :param names: The channels that have listeners.
    """

    def __init__(self, names: Collection[bytes], control: Control) -> None:
        self._names = names
        self._control = control

    def __contains__(self, name: object) -> bool:
        return name in self._names or (name == CONTROL and self._control.is_wanted)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._names
        if self._control.is_wanted:
            yield CONTROL

    def __len__(self) -> int:
        return len(self._names) + self._control.is_wanted
