"""Parses the bytes of an event stream, as a browser does.

Only the reader of the stream uses a parser. The format is defined in the WHATWG
specification, section 9.2.6 "Interpreting an event stream".
"""

import codecs
import re
from typing import Final, NamedTuple

_LINE_END: Final = re.compile("\r\n|\n|\r")
_NUMBER: Final = re.compile("[0-9]{1,15}")
"""A time in milliseconds; Python refuses to convert thousands of digits."""


class Parsed(NamedTuple):
    """An event, with only those fields that were sent with it, and the id that a page sees."""

    data: str
    type: str | None
    id: str | None
    retry: int | None
    last_id: str = ""
    """The last id in the stream, from this event or an earlier one."""


class Parser:
    """Parses a stream piece by piece.

    :param last_id: The last id of the stream before, if the client has reconnected.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        """The last id in the stream, also from an event that is not complete."""
        self.retry: int | None = None
        """The last ``retry`` of the stream, in milliseconds."""
        self.comments = 0
        """How many comments the stream has had."""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._ends_in_cr = False
        self._rest = ""
        self._fields: dict[str, str] = {}
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[Parsed]:
        """Return the events that this piece completes."""
        text = self._decoder.decode(piece)
        if not text:
            return []
        # This line feed belongs to the carriage return at the end of the piece before.
        if self._ends_in_cr:
            text = text.removeprefix("\n")
        self._ends_in_cr = text.endswith("\r")
        *lines, self._rest = _LINE_END.split(self._rest + text)
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: str) -> Parsed | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                self.comments += 1
            case "data":
                self._data.append(value)
            case "event":
                self._fields[name] = value
            case "id" if "\0" not in value:
                self._fields[name] = self.last_id = value
            case "retry" if _NUMBER.fullmatch(value):
                self.retry = int(value)
                # At the start of a stream, it has no blank line after it, and belongs to no event.
                if self._data or self._fields:
                    self._fields[name] = value
            case _:
                pass
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
            self.last_id,
        )
