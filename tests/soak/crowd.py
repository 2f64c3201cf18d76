"""Many clients that come back after each loss, in one thread."""

import random
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from tests.soak.checker import BROKEN, CONNECTED, Record
from tests.support.client import StreamClient
from tests.support.parser import Event

_TURN: Final = 0.02
_FIRST_RETRY: Final = 0.1
_SMALL: Final = 4096
_RESET: Final = struct.pack("ii", 1, 0)


class Member:
    """A client: where it connects to, and what it has received.

    :param is_small: Whether the system keeps little for it, so that it lags at once when it
        does not read.
    """

    def __init__(self, port: int, channel: str, *, is_small: bool) -> None:
        self.port = port
        self.channel = channel
        self.record: list[Event] = []
        self.last_id = ""
        self.stream: StreamClient | None = None
        self.due = 0.0
        """When to connect, or to go on reading."""
        self._is_small = is_small
        self._retry = _FIRST_RETRY

    def connect(self) -> StreamClient:
        """Connect, with the id that has been received last."""
        headers = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        size = _SMALL if self._is_small else None
        self.stream = StreamClient(self.port, self.channel, receive_buffer=size, headers=headers)
        self.record.append(Event(CONNECTED, "", self.last_id))
        return self.stream

    def receive(self, known: dict[Event, Event]) -> None:
        """Read what has come.

        :param known: Events that others have received, so that each is kept once.
        """
        stream = self.stream
        assert stream is not None
        try:
            stream.receive()
        except (AssertionError, ValueError) as error:
            self.record.append(Event(BROKEN, repr(error), ""))
            stream.ended = True
        if stream.headers and stream.status != 200:
            self.record.append(Event(BROKEN, f"status {stream.status}", ""))
            stream.ended = True
        if stream.retry is not None:
            self._retry = stream.retry / 1000
        if stream.events:
            self.record += [known.setdefault(event, event) for event in stream.events]
            self.last_id = stream.events[-1].id
            stream.events.clear()

    def disconnect(self, pause: float | None = None) -> None:
        """Disconnect; come back after some seconds, or when the server has said so."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        self.due = time.monotonic() + (
            self._retry * random.uniform(1, 2) if pause is None else pause
        )


class Crowd:
    """Clients in a thread of their own, as long as the block lasts."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._wishes: deque[Callable[[], None]] = deque()
        self._known: dict[Event, Event] = {}
        self._selector = selectors.DefaultSelector()
        self._resting = dict.fromkeys(members)
        """Those that have no connection, or do not read from it."""
        self._stopped = False
        self._thread = threading.Thread(target=self._run)
        self.error: Exception | None = None

    def __enter__(self) -> "Crowd":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()
        for member in self._members:
            member.disconnect()
        self._selector.close()

    def records(self) -> list[Record]:
        """Return what each client has received so far."""
        return [Record(member.channel, member.record) for member in self._members]

    def have_opened(self) -> bool:
        """Whether each client has a place from which it can be checked."""
        return all(member.last_id for member in self._members)

    def are_at(self, ends: dict[str, str]) -> bool:
        """Whether each client has received the last event of its channel, or a later reset."""
        return all(member.last_id == ends[member.channel] for member in self._members)

    def cut(self, number: int, rng: random.Random) -> None:
        """Have some connections lost, half of them by a reset of TCP."""
        chosen = rng.sample(self._members, number)
        self._wishes.append(lambda: self._cut(chosen))

    def leave(self, number: int, seconds: float, rng: random.Random) -> None:
        """Have some clients go away for some seconds."""
        chosen = rng.sample(self._members, number)
        self._wishes.append(lambda: self._leave(chosen, seconds))

    def stop_reading(self, number: int, seconds: float, rng: random.Random) -> None:
        """Have some clients not read for some seconds."""
        chosen = rng.sample(self._members, number)
        self._wishes.append(lambda: self._stop_reading(chosen, seconds))

    def wake(self) -> None:
        """Have all clients connect and read."""
        self._wishes.append(self._wake)

    # In the thread

    def _run(self) -> None:
        try:
            while not self._stopped:
                while self._wishes:
                    self._wishes.popleft()()
                self._begin()
                for key, _ in self._selector.select(_TURN):
                    self._read(key.data)
        except Exception as error:
            self.error = error
            raise

    def _begin(self) -> None:
        now = time.monotonic()
        for member in [member for member in self._resting if member.due <= now]:
            if member.stream is None:
                try:
                    member.connect()
                except OSError:
                    member.disconnect()
                    continue
            assert member.stream is not None
            self._selector.register(member.stream.socket, selectors.EVENT_READ, member)
            del self._resting[member]

    def _read(self, member: Member) -> None:
        assert member.stream is not None
        try:
            member.receive(self._known)
        except OSError:
            member.stream.ended = True
        if member.stream.ended:
            self._drop(member)

    def _drop(self, member: Member, pause: float | None = None) -> None:
        self._rest(member)
        member.disconnect(pause)

    def _rest(self, member: Member) -> None:
        if member not in self._resting:
            assert member.stream is not None
            self._selector.unregister(member.stream.socket)
            self._resting[member] = None

    def _cut(self, members: Sequence[Member]) -> None:
        for index, member in enumerate(members):
            if member.stream is not None and index % 2:
                member.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._drop(member)

    def _leave(self, members: Sequence[Member], seconds: float) -> None:
        for member in members:
            self._drop(member, seconds)

    def _stop_reading(self, members: Sequence[Member], seconds: float) -> None:
        for member in members:
            self._rest(member)
            member.due = time.monotonic() + seconds

    def _wake(self) -> None:
        for member in self._resting:
            member.due = 0
