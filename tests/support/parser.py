"""A strict parser of the event-stream format.

It follows the WHATWG specification, section 9.2.6, and is for tests: anything that a lenient
client would ignore is an error here.
"""

from typing import NamedTuple


class Event(NamedTuple):
    """An event that a client dispatches; the `id` is the last event id at that time."""

    type: str
    data: str
    id: str


class Parser:
    """Parses the bytes of a stream piece by piece."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.comments = 0
        self.retry: int | None = None
        self._rest = b""
        self._type = ""
        self._data: list[str] = []
        self._id = ""

    @property
    def torn(self) -> bool:
        """Whether the stream currently ends within a frame."""
        return bool(self._rest or self._data or self._type)

    def feed(self, piece: bytes) -> None:
        """Parse the next bytes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            assert b"\r" not in line, f"a carriage return in {line!r}"
            self._line(line.decode())

    def _line(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        field, colon, value = line.partition(":")
        assert colon, f"a line without a colon: {line!r}"
        value = value.removeprefix(" ")
        match field:
            case "":
                self.comments += 1
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "id":
                assert "\0" not in value
                self._id = value
            case "retry":
                assert value.isascii()
                assert value.isdigit()
                self.retry = int(value)
            case _:
                raise AssertionError(f"an unknown field: {line!r}")

    def _dispatch(self) -> None:
        if self._data:
            self.events.append(Event(self._type or "message", "\n".join(self._data), self._id))
        self._type, self._data = "", []


def parse(text: str | bytes) -> list[Event]:
    """Parse a whole stream."""
    parser = Parser()
    parser.feed(text.encode() if isinstance(text, str) else text)
    assert not parser.torn
    return parser.events
