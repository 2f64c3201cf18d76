"""A stream that is read in this process, as a WSGI server would read it."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask
from werkzeug.wrappers import Response

from tests.support.parser import Event, Parser


class LocalStream:
    """A stream as a server sees it: the pieces that it would send."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.parser = Parser()
        self._taken = 0
        self.first = self.read()

    def read(self) -> bytes:
        """Read one piece, which is empty at the end of the stream."""
        piece = next(self._pieces, b"")
        self.parser.feed(piece)
        assert not self.parser.torn
        return piece

    def events(self, number: int) -> list[Event]:
        """Read until there are *number* events in total."""
        while len(self.parser.events) < number:
            assert self.read(), "the stream has ended"
        return self.parser.events

    def take(self, number: int) -> list[Event]:
        """Return the next *number* events."""
        before, self._taken = self._taken, self._taken + number
        return self.events(self._taken)[before : self._taken]


def pieces_of(response: Response) -> Iterator[bytes]:
    """Return the pieces that a server would send."""
    for piece in response.response:
        assert isinstance(piece, bytes)
        yield piece


@contextmanager
def open_stream(app: Flask, channel: str | None = None) -> Iterator[LocalStream]:
    """Open a stream of *app* and read its first piece."""
    query = {} if channel is None else {"channel": channel}
    with app.test_client().get("/stream", query_string=query) as response:
        assert response.status_code == 200
        yield LocalStream(pieces_of(response))
