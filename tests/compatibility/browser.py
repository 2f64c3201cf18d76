"""A client that reads an event stream as a browser does.

It follows the WHATWG's specification, section 9.2.6, and forgives what that forgives: what it
receives is what a page would.
"""

import http.client
import re
from collections.abc import Mapping
from typing import NamedTuple, Self

from tests.support.processes import LOOPBACK

END = "the end of this test"


class Received(NamedTuple):
    """What a page gets with an event, and how long it would wait before it reconnects."""

    type: str
    data: str
    id: str
    retry: int | None


class EventSource:
    """What a browser does with the bytes of a stream."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.retry: int | None = None
        self._rest = b""
        self._type = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, piece: bytes) -> None:
        """Take what has come."""
        *lines, self._rest = re.split(rb"\r\n|\n|\r(?!\n|\Z)", self._rest + piece)
        for line in lines:
            self._take(line.decode(errors="replace"))

    def _take(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._type = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and re.fullmatch("[0-9]+", value):
            self.retry = int(value)

    def _dispatch(self) -> None:
        # One empty line of data is an event: the buffer of which the specification speaks has
        # got a line feed by it.
        if self._data:
            data = "\n".join(self._data)
            self.received.append(Received(self._type or "message", data, self._id, self.retry))
        self._type, self._data = "", []


class Browser:
    """A connection to a stream.

    :param cookie: What the browser has been given before.
    """

    def __init__(
        self, port: int, path: str, headers: Mapping[str, str] | None = None, cookie: str = ""
    ) -> None:
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
        self._response: http.client.HTTPResponse | None = None
        self._source = EventSource()
        self._connection.request(
            "GET",
            path,
            headers={
                "Accept": "text/event-stream",
                "Cache-Control": "no-cache",
                **({"Cookie": cookie} if cookie else {}),
                **(headers or {}),
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()

    @property
    def response(self) -> http.client.HTTPResponse:
        """The response, for whose headers this waits."""
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    def read_to_mark(self) -> list[Received]:
        """Read until the event :data:`END`; return what came before."""
        while not self._source.received or self._source.received[-1].type != END:
            self._read()
        return self._source.received[:-1]

    def read(self, number: int) -> list[Received]:
        """Read until there are *number* events."""
        while len(self._source.received) < number:
            self._read()
        return self._source.received

    def read_to_end(self) -> list[Received]:
        """Read until the server ends the stream."""
        while piece := self.response.read1():
            self._source.feed(piece)
        return self._source.received

    def read_line(self) -> str:
        """Read a line of something else than events."""
        return self.response.readline().decode()

    def _read(self) -> None:
        piece = self.response.read1()
        assert piece, f"the stream has ended: {self._source.received}"
        self._source.feed(piece)
