"""Tells Redis about the members of all channels, and announces joins and leaves to all clients.

Only the thread of a roster uses it. `work` and `say_farewell` block: they wait for Redis.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Final, NamedTuple

import redis

from flask_sse._event import channel_name
from flask_sse._presence.room import Room, Times
from flask_sse._redis import lease_commands
from flask_sse._redis.lease_commands import Lease
from flask_sse._redis.log_commands import is_forbidden
from flask_sse._redis.scripts import Scripts
from flask_sse._system.clock import monotonic

_log: Final = logging.getLogger("flask_sse")

JOIN: Final = "sse.join"
LEAVE: Final = "sse.leave"
_AT_ONCE: Final = 250
"""How many channels are updated in one pipeline."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
_FAILURES: Final = (redis.RedisError, TypeError)


class Announcement(NamedTuple):
    """An event about a member."""

    channel: bytes
    type: str
    client: str


class Registrar:
    """Keeps the leases of this process.

    :param process: The name of this process in Redis.
    :param scripts: Leads to Redis.
    :param announce: Publishes an event. It may raise a :class:`redis.RedisError`. If Redis does
        not allow it, the event is dropped, and otherwise it is tried again.
    """

    def __init__(
        self,
        process: str,
        scripts: Scripts,
        announce: Callable[[Announcement], None],
        times: Times,
    ) -> None:
        self._process = process
        self._scripts = scripts
        self._announce = announce
        self._times = times
        self._rooms: dict[bytes, Room] = {}
        self._agenda: list[tuple[float, int, Room]] = []
        self._numbers = count()
        self._announcements: deque[Announcement] = deque()
        self._not_before = -math.inf
        self._pause = _FIRST_PAUSE
        self._is_failing = False
        self._is_refused = False

    @property
    def is_idle(self) -> bool:
        """Whether there are no members, and there is nothing to tell."""
        return not self._rooms and not self._announcements

    def enter(self, channel: bytes, client: str) -> None:
        """Note one more stream of a client."""
        room = self._rooms.get(channel)
        if room is None:
            room = self._rooms[channel] = Room(channel, self._times)
        room.enter(client)
        self._schedule(room, monotonic())

    def leave(self, channel: bytes, client: str, *, is_expected: bool) -> None:
        """Note one stream less of a client.

        :param is_expected: Whether the client is expected back, since the server has ended it.
        """
        room = self._rooms.get(channel)
        if room is not None:
            now = monotonic()
            room.leave(client, now, is_expected=is_expected)
            self._schedule(room, now)

    def end_absences(self) -> None:
        """Note that the clients without streams have left, and don't wait for them."""
        now = monotonic()
        for room in [*self._rooms.values()]:
            room.end_absences(now, at_once=True)
            self._settle(room, now)

    def pause(self) -> float:
        """Return in how many seconds there is something to do; must not be called when idle."""
        due = -math.inf if self._announcements else self._agenda[0][0]
        return max(0.0, max(due, self._not_before) - monotonic())

    def work(self) -> None:
        """Do what is due: the next channels, and the events about their members."""
        now = monotonic()
        if now < self._not_before:
            return
        rooms = self._take_due(now)
        for room in rooms:
            room.end_absences(now)
        self._compare([room for room in rooms if room.needs_comparison])
        told = [room for room in rooms if room.has_news(now)]
        self._tell(told, [room.news() for room in told])
        for room in rooms:
            self._settle(room, now)
        self._announce_all()

    def say_farewell(self) -> None:
        """Shorten all leases, because this process stops."""
        rooms = [*self._rooms.values()]
        while rooms:
            some, rooms = rooms[:_AT_ONCE], rooms[_AT_ONCE:]
            if not self._tell(some, [room.farewell() for room in some]):
                return
        self._announce_all()

    def _take_due(self, now: float) -> list[Room]:
        rooms: list[Room] = []
        while self._agenda and self._agenda[0][0] <= now and len(rooms) < _AT_ONCE:
            due, _, room = heappop(self._agenda)
            # It may have been put in again with an earlier time.
            if room.due == due:
                room.due = math.inf
                rooms.append(room)
        return rooms

    def _settle(self, room: Room, now: float) -> None:
        """Note when there is something to do for a room, or forget it."""
        if not room.is_empty:
            self._schedule(room, now)
        elif self._rooms.get(room.name) is room:
            del self._rooms[room.name]

    def _schedule(self, room: Room, now: float) -> None:
        due = room.next_due(now)
        if due < room.due:
            room.due = due
            heappush(self._agenda, (due, next(self._numbers), room))

    def _tell(self, rooms: Sequence[Room], news: Sequence[Lease]) -> bool:
        """Tell Redis about some rooms; return whether it has answered."""
        if not rooms:
            return True
        calls = [
            lease_commands.lease(room.name, self._process, lease)
            for room, lease in zip(rooms, news, strict=True)
        ]
        now = monotonic()
        try:
            replies = self._scripts.run_all(calls)
        except _FAILURES as error:
            self._note_failure(error)
            self._not_before = now + self._pause
            for room in rooms:
                room.delay(self._not_before)
            return False
        failure: Exception | None = None
        for room, reply in zip(rooms, replies, strict=True):
            if isinstance(reply, Exception):
                failure = reply
                room.delay(now + self._pause)
                continue
            outcome = lease_commands.parse_outcome(reply)
            room.answered(outcome, now)
            for kind, clients in ((JOIN, outcome.joined), (LEAVE, outcome.left)):
                names = (_decode(client) for client in clients)
                self._announcements += [Announcement(room.name, kind, name) for name in names]
        if failure is None:
            self._note_success()
        else:
            self._note_failure(failure)
        return True

    def _compare(self, rooms: Sequence[Room]) -> None:
        """Find out which members Redis still has that have left."""
        if not rooms:
            return
        try:
            replies = self._scripts.run_all([lease_commands.members(one.name) for one in rooms])
        except _FAILURES as error:
            replies = [error] * len(rooms)
        for room, reply in zip(rooms, replies, strict=True):
            if isinstance(reply, Exception):
                self._note_failure(reply)
                room.delay(monotonic() + self._pause)
            else:
                known = lease_commands.clients_of(reply, self._process)
                room.compare([_decode(client) for client in known])

    def _announce_all(self) -> None:
        while self._announcements:
            try:
                self._announce(self._announcements[0])
            except redis.RedisError as error:
                if not is_forbidden(error):
                    self._note_failure(error)
                    self._not_before = monotonic() + self._pause
                    return
                # Others must not wait for it. They may be about channels that are allowed.
                self._note_refusal(self._announcements[0], error)
            except Exception:  # noqa: BLE001 - the application's JSON provider may refuse a name
                _, kind, client = self._announcements[0]
                _log.exception("%s of the client %a can't be published", kind, client)
            self._announcements.popleft()

    def _note_failure(self, error: Exception) -> None:
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        if self._is_failing:
            return
        self._is_failing = True
        shown = lease_commands.explain(error) if isinstance(error, redis.ResponseError) else error
        _log.warning("Redis can't be told who is present, and is told later: %s", shown)

    def _note_refusal(self, announcement: Announcement, error: redis.RedisError) -> None:
        if self._is_refused:
            return
        self._is_refused = True
        _log.warning(
            "joins and leaves on channel %s are not announced, because Redis refuses to publish "
            "them; allow it, for example with ACL SETUSER <user> +@pubsub &*; Redis says: %s",
            channel_name.for_log(announcement.channel),
            error,
        )

    def _note_success(self) -> None:
        self._pause = _FIRST_PAUSE
        if self._is_failing:
            self._is_failing = False
            _log.info("Redis knows again who is present")


def _decode(client: bytes) -> str:
    return client.decode(errors="surrogatepass")
