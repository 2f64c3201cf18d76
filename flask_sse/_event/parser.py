"""Parses the bytes of an event stream, as a browser does.

Only the reader of the stream uses a parser. The format is defined in the WHATWG
specification, section 9.2.6 "Interpreting an event stream".
"""

import codecs
import re
from typing import Final, NamedTuple

_LINE_END: Final = re.compile("\r\n|\n|\r")


class Parsed(NamedTuple):
    """An event, with only those fields that were sent with it."""

    data: str
    type: str | None
    id: str | None
    retry: int | None


class Parser:
    """Parses a stream piece by piece."""

    def __init__(self) -> None:
        self.retry: int | None = None
        """The last ``retry`` of the stream."""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._fields: dict[str, str] = {}
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[Parsed]:
        """Return the events that this piece completes."""
        text = self._rest + self._decoder.decode(piece)
        # A carriage return at the end may be the first half of a line break.
        end = len(text) - text.endswith("\r")
        *lines, rest = _LINE_END.split(text[:end])
        self._rest = rest + text[end:]
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: str) -> Parsed | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event" or (name == "id" and "\0" not in value):
            self._fields[name] = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)
            # At the start of a stream, it has no blank line after it, and belongs to no event.
            if self._data or self._fields:
                self._fields[name] = value
        return None

    def _dispatch(self) -> Parsed | None:
        fields, self._fields = self._fields, {}
        data, self._data = self._data, []
        if not data:
            return None
        retry = fields.get("retry")
        return Parsed(
            "\n".join(data),
            fields.get("event") or None,
            fields.get("id"),
            None if retry is None else int(retry),
        )
