"""Clients that reconnect as a browser's `EventSource` does, in the process of the site.

A client keeps the id of the last event that it has received whole, and sends it when it connects
again. Its connection may be cut after any byte.
"""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import urlencode

from flask import Flask

from flask_sse._streaming.servers import PATIENCE as READER_WAITS
from tests.support.handing_over import Answer, request
from tests.support.parser import Event, Parser
from tests.support.waiting import PATIENCE, wait_until

PATH = "/streams"
"""Where the site has a view that takes the channels from its query."""
_LOOKS_EVERY = 0.05


class _Transport(Protocol):
    """How the bytes of one stream come to a client."""

    has_ended: bool

    @property
    def status(self) -> int:
        """The status of the answer; 0 as long as it has not come."""
        ...

    def read(self) -> bytes:
        """Return the bytes that have come since the last call, without waiting."""
        ...

    def pause(self, *, pausing: bool) -> None:
        """Stop reading, or continue."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class _HandedOver:
    """A connection that the hub serves."""

    def __init__(self, app: Flask, path: str, last_id: str) -> None:
        self.has_ended = False
        self._answer = Answer()
        headers = [f"Last-Event-ID: {last_id}"] if last_id else []
        self._socket = request(app, path, headers)

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self._answer.status

    def read(self) -> bytes:
        """Return what has come."""
        body = b""
        with contextlib.suppress(BlockingIOError):
            while data := self._socket.recv(1 << 16):
                body += self._answer.feed(data)
            self.has_ended = True
        return body

    def pause(self, *, pausing: bool) -> None:
        """Do nothing, since :meth:`read` is not called."""

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class _Read:
    """A stream that the thread of a server reads."""

    def __init__(self, app: Flask, path: str, last_id: str) -> None:
        self.status = 0
        self.has_ended = False
        self._is_closed = False
        self._may_read = threading.Event()
        self._may_read.set()
        self._pieces: list[bytes] = []
        headers = {"Last-Event-ID": last_id} if last_id else {}
        self._thread = threading.Thread(target=self._run, args=(app, path, headers))
        self._thread.start()

    def read(self) -> bytes:
        """Return what the thread has read."""
        has_ended = not self._thread.is_alive()
        pieces = self._pieces[:]
        del self._pieces[: len(pieces)]
        self.has_ended = has_ended
        return b"".join(pieces)

    def pause(self, *, pausing: bool) -> None:
        """Stop reading, or continue."""
        if pausing:
            self._may_read.clear()
        else:
            self._may_read.set()

    def close(self) -> None:
        """Leave the stream, and wait for the thread."""
        self._is_closed = True
        self._may_read.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self, app: Flask, path: str, headers: dict[str, str]) -> None:
        environ = {READER_WAITS: lambda: _LOOKS_EVERY}
        with app.test_client().get(path, headers=headers, environ_overrides=environ) as response:
            self.status = response.status_code
            for piece in response.response:
                assert isinstance(piece, bytes)
                self._pieces.append(piece)
                self._may_read.wait(PATIENCE)
                if self._is_closed:
                    return


class _Parser(Parser):
    """Knows the id that a browser would send, which outlives the connection."""

    def __init__(self, last_id: str) -> None:
        super().__init__()
        self.last_id = self._id = last_id

    def _dispatch(self) -> None:
        super()._dispatch()
        self.last_id = self._id


class EventSource:
    """A client of several channels, which reconnects when :meth:`come_back` is called.

    :param is_read: Whether a thread reads the stream; otherwise, the stream is handed over.
    :param last_id: The id with which it connects first.
    :param options: Other parameters of the query.
    """

    def __init__(
        self,
        app: Flask,
        channels: Sequence[str],
        *,
        is_read: bool = False,
        last_id: str = "",
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.app = app
        self.channels = channels
        self.last_id = last_id
        self.connections = 0
        self.is_paused = False
        self.is_over = False
        """Whether the server has answered with 204, so that it must not connect again."""
        self.has_begun = False
        """Whether something has come on this connection."""
        self.bytes_left: int | None = None
        """After how many bytes the connection is cut."""
        self._make = _Read if is_read else _HandedOver
        self._options = options or {}
        self._parser = _Parser(last_id)
        self._transport: _Transport | None = None
        self.connect()

    def __repr__(self) -> str:
        kind = self._make.__name__
        return f"<EventSource {kind} {' '.join(self.channels)} after {self.last_id!r}>"

    @property
    def is_connected(self) -> bool:
        """Whether the stream is open, as far as the client knows."""
        return self._transport is not None

    def connect(self, app: Flask | None = None, channels: Sequence[str] | None = None) -> None:
        """Open the stream, with the last id.

        :param app: Another process of the site.
        :param channels: Other channels.
        """
        self.close()
        self.app = app or self.app
        self.channels = self.channels if channels is None else channels
        query = {"channel": self.channels, **self._options}
        self._parser = _Parser(self.last_id)
        self.has_begun = False
        self.bytes_left = None
        self.connections += 1
        path = f"{PATH}?{urlencode(query, doseq=True)}"
        transport: _Transport = self._make(self.app, path, self.last_id)
        transport.pause(pausing=self.is_paused)
        self._transport = transport

    def pause(self, *, pausing: bool) -> None:
        """Stop reading, or continue."""
        self.is_paused = pausing
        if self._transport is not None:
            self._transport.pause(pausing=pausing)

    def receive(self) -> list[Event]:
        """Return the events that have come since the last call, without waiting."""
        transport = self._transport
        if transport is None or self.is_paused:
            return []
        data = transport.read()
        self.has_begun = self.has_begun or bool(data)
        if self.bytes_left is not None:
            cut = len(data) >= self.bytes_left
            data = data[: self.bytes_left]
            self.bytes_left = None if cut else self.bytes_left - len(data)
        else:
            cut = False
        self.is_over = transport.status == 204
        if transport.status == 200:
            self._parser.feed(data)
        events, self._parser.events = self._parser.events, []
        self.last_id = self._parser.last_id
        if cut or transport.has_ended:
            self.close()
        return events

    def come_back(self) -> bool:
        """Connect again if the stream has ended; return whether it has."""
        if self.is_connected or self.is_over:
            return False
        self.connect()
        return True

    def wait(self, number: int) -> list[Event]:
        """Wait for some events, and return them."""
        events: list[Event] = []

        def is_complete() -> bool:
            self.come_back()
            events.extend(self.receive())
            return len(events) >= number

        wait_until(is_complete, f"{number} events for {self!r}")
        return events

    def close(self) -> None:
        """Close the connection."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
