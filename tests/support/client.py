"""A client of an event stream at the level of its socket."""

import socket
import ssl
import time
from collections.abc import Callable
from typing import Self
from urllib.parse import quote

from tests.support.parser import Event, Parser
from tests.support.processes import LOOPBACK
from tests.support.waiting import PATIENCE


class StreamClient:
    """Opens a stream and parses its data strictly.

    :param receive_buffer: Bytes that the kernel may buffer for this client.
    :param tls: Connects to ``localhost`` through TLS.
    """

    def __init__(
        self,
        port: int,
        channel: str | None = None,
        *,
        path: str = "/stream",
        version: str = "1.1",
        method: str = "GET",
        receive_buffer: int | None = None,
        headers: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        query = "" if channel is None else f"?channel={quote(channel)}"
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        host = "test" if tls is None else "localhost"
        request = f"{method} {path}{query} HTTP/{version}\r\nHost: {host}\r\n{headers}\r\n"
        try:
            self.socket.connect((LOOPBACK, port))
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
            self.socket.sendall(request.encode())
        except OSError:
            self.socket.close()
            raise
        self.parser = Parser()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False
        self.was_reset = False
        self.complete = False
        self._raw = bytearray()
        self._chunk_end = 0
        self._chunked = False
        self._has_body = method != "HEAD"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def open(self, seconds: float = PATIENCE) -> Self:
        """Wait for the headers and the first bytes of the stream."""
        self.read_headers(seconds)
        assert self.status == 200, f"refused: {self.status}"
        self._read_until(lambda: self.ended or bool(self.parser.comments or self.retry), seconds)
        return self

    def read_headers(self, seconds: float = PATIENCE) -> Self:
        """Wait for the headers."""
        self._read_until(lambda: bool(self.headers), seconds)
        return self

    def read_rest(self, seconds: float = PATIENCE) -> bytes:
        """Return all bytes after the headers, until the server closes the connection."""
        rest = bytes(self._raw)
        self.socket.settimeout(seconds)
        while piece := self.socket.recv(1 << 16):
            rest += piece
        return rest

    @property
    def retry(self) -> int | None:
        """The value of the stream's last ``retry``."""
        return self.parser.retry

    @property
    def events(self) -> list[Event]:
        """The events so far."""
        return self.parser.events

    def wait_events(self, number: int, seconds: float = PATIENCE) -> list[Event]:
        """Wait until there are *number* events in total; return them all."""
        self._read_until(lambda: len(self.events) >= number, seconds)
        return self.events

    def wait_comments(self, number: int, seconds: float = PATIENCE) -> None:
        """Wait until there have been *number* comments in total."""
        self._read_until(lambda: self.parser.comments >= number, seconds)

    def wait_end(self, seconds: float = PATIENCE) -> Self:
        """Wait for the end of the response, or of the connection."""
        self._read_until(lambda: self.ended, seconds)
        return self

    def describe(self) -> str:
        """Return the data so far, for a message."""
        return (
            f"ended: {self.ended}, reset: {self.was_reset}, status: {self.status}, "
            f"comments: {self.parser.comments}, retry: {self.retry}, "
            f"events: {self.events[-3:]}, rest: {bytes(self._raw[:100])!r}"
        )

    def _read_until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or self.ended:
                raise AssertionError(
                    f"not to be had from the stream within {seconds} s; {self.describe()}"
                )
            self.socket.settimeout(left)
            self.receive()

    def receive(self) -> None:
        """Read once, and parse the data."""
        try:
            piece = self.socket.recv(1 << 16)
        except TimeoutError:
            return
        except ConnectionResetError:
            self.was_reset = True
            piece = b""
        if not piece:
            self.ended = True
            self.complete = self.complete or (bool(self.headers) and not self._chunked)
            return
        self._raw += piece
        if not self.headers and not self._parse_head():
            return
        if self.status == 200 and self._has_body:
            self._parse_chunks() if self._chunked else self._parse_bare()

    def _parse_head(self) -> bool:
        head, end, rest = self._raw.partition(b"\r\n\r\n")
        if not end:
            return False
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        self._chunked = self.headers.get("transfer-encoding") == "chunked"
        self._raw = rest
        return True

    def _parse_bare(self) -> None:
        self.parser.feed(bytes(self._raw))
        self._raw.clear()

    def _parse_chunks(self) -> None:
        # A large chunk arrives in many pieces, and must not be copied for each of them.
        while len(self._raw) >= self._chunk_end:
            size, end, _ = self._raw[:20].partition(b"\r\n")
            if not end:
                return
            start, length = len(size) + 2, int(size, 16)
            self._chunk_end = start + length + 2
            if len(self._raw) < self._chunk_end:
                return
            chunk = bytes(self._raw[start : self._chunk_end])
            assert chunk.endswith(b"\r\n"), "a chunk of another size than it says"
            del self._raw[: self._chunk_end]
            self._chunk_end = 0
            if length == 0:
                assert not self.parser.torn
                self.ended = self.complete = True
                return
            self.parser.feed(chunk[:-2])
