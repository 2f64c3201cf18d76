"""A stream from outside, with the times at which its parts arrived.

A separate daemon thread reads it; everything else is for the thread that made it.
"""

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Final, Self

from flask_sse._event.client import StreamResponse, hang_up, open_stream
from flask_sse._event.parser import Parsed, Parser
from flask_sse._system.clock import monotonic

_END_WITHIN: Final = 1.0


class Probe:
    """Connects at once, and reads until it is closed."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.started = monotonic()
        self.stream: StreamResponse | None = None
        """The response, once its head has arrived."""
        self.error: Exception | None = None
        """The reason why there is no response, or why its body can't be read."""
        self.headers_after: float | None = None
        """Seconds until the head arrived."""
        self.first_after: float | None = None
        """Seconds until the first byte of the body arrived."""
        self.heard = self.started
        """When the last data arrived."""
        self.ended: float | None = None
        """When the stream ended or failed to open."""
        self.parser = Parser()
        self.events: list[Parsed] = []
        self._socket: socket.socket | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(url, headers), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def has_ended(self) -> bool:
        """Whether the stream has ended."""
        return self.ended is not None

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition is true or the stream has ended; return whether it is true."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or self.has_ended, seconds)
            return condition()

    def wait_head(self, seconds: float) -> bool:
        """Wait for the head of the response; return whether it has arrived."""
        return self.wait(lambda: self.stream is not None, seconds)

    def wait_first(self, seconds: float) -> bool:
        """Wait for the first byte of the body; return whether it has arrived."""
        return self.wait(lambda: self.first_after is not None, seconds)

    def wait_event(self, data: str, seconds: float) -> bool:
        """Wait for an event with this data; return whether it has arrived."""
        return self.wait(lambda: any(event.data == data for event in self.events), seconds)

    def close(self) -> None:
        """Close the connection."""
        with self._changed:
            self._is_closed = True
            if self._socket is not None:
                hang_up(self._socket)
        # The thread may still be looking up the host.
        self._thread.join(_END_WITHIN)

    def _run(self, url: str, headers: Mapping[str, str]) -> None:
        error = None
        try:
            with closing(open_stream(url, headers, connected=self._note_connection)) as stream:
                self._note_head(stream)
                while piece := stream.read():
                    self._note_piece(piece)
        except Exception as raised:  # noqa: BLE001 - the check that waits reports it
            error = raised
        with self._changed:
            self.error = error
            self.ended = monotonic()
            self._changed.notify_all()

    def _note_connection(self, connection: socket.socket) -> None:
        with self._changed:
            self._socket = connection
            if self._is_closed:
                hang_up(connection)

    def _note_head(self, stream: StreamResponse) -> None:
        with self._changed:
            self.stream = stream
            self.headers_after = monotonic() - self.started
            self._changed.notify_all()

    def _note_piece(self, piece: bytes) -> None:
        with self._changed:
            self.heard = monotonic()
            if self.first_after is None:
                self.first_after = self.heard - self.started
            self.events += self.parser.feed(piece)
            self._changed.notify_all()
