"""One server-sent event: its text, its stored form, its checks.

Pure functions and values, which can be used from any thread; nothing here blocks.
The format is defined in the WHATWG specification, section 9.2.6 "Interpreting
an event stream".
"""

import math
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict, cast

from flask import json
from flask.json.provider import JSONProvider

COMMENT: Final = b":\n"
"""A line that every client ignores (WHATWG specification, section 9.2.6).

No blank line follows, because some clients, such as fetch-event-source 2.0.1 and
extended-eventsource, would dispatch an empty event.
"""


class StoredMessage(TypedDict):
    """An event as Redis carries it, as JSON: always with `data`, the others if given."""

    data: Any
    type: NotRequired[str]
    id: NotRequired[str | int]
    retry: NotRequired[int]


class Message:
    r"""A server-sent event: data, and optionally a type, an id and a time to reconnect.

    The attributes have the names of the parameters. A value that is assigned to
    an attribute is converted and checked like the parameter. Two messages are
    equal if all their attributes are equal.

    >>> message = Message({"n": 1}, type="count", id=7)
    >>> message.type
    'count'
    >>> message == Message({"n": 1}, "count", 7)
    True
    """

    data: Any
    type: str | None
    id: str | int | None
    retry: int | None

    def __init__(
        self,
        data: Any,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
    ) -> None:
        """Create a server-sent event.

        If *type*, *id* or *retry* does not have the annotated type, it is converted if
        possible: bytes are decoded as UTF-8, a number stays a number, ``False`` counts
        as ``None``, and the JSON provider must convert anything else to a string, as it
        does for a UUID or a date. For *retry*, a string of digits is a number, and
        fractions are dropped.

        :param data: The event's data. Anything but a string is serialized to JSON
            by the Flask application's
            :class:`~flask.json.provider.JSONProvider`. The empty string is valid data.
            Carriage returns reach the client as line feeds, since the format
            has no other line break within data.
        :param type: The event type, which is the name that a page passes to
            ``addEventListener``. Without one, the event is a ``message``.
        :param id: The event id, which a browser sends back as ``Last-Event-ID``
            when it reconnects. An empty string resets it.
        :param retry: The time, in milliseconds, after which clients of this
            stream reconnect once they have been disconnected.
        :raises TypeError: if *type*, *id* or *retry* can't be converted.
        :raises ValueError: if *type* contains a line break, if *id* contains a line
            break or a NUL character, if *retry* is not a number or is negative, or if
            bytes are not UTF-8. A client would read the text after a line break as
            another field.
        """
        self.data = data
        self.type = type
        self.id = id
        self.retry = retry

    if not TYPE_CHECKING:  # a type checker would allow assignments to any name

        def __setattr__(self, name: str, value: object) -> None:
            convert = _CONVERSIONS.get(name)
            if convert is not None:
                value = None if value is None or value is False else convert(value)
            super().__setattr__(name, value)

    def to_dict(self) -> StoredMessage:
        """Serialize this event to a minimal dictionary, for storing in Redis.

        It always has the key ``data``, with the value as it was given. It has ``type``, ``id``
        and ``retry`` only if they are not ``None``.

        >>> Message("Hello!", type="greeting").to_dict()
        {'data': 'Hello!', 'type': 'greeting'}
        >>> Message({"n": 1}, id=7, retry=3000).to_dict()
        {'data': {'n': 1}, 'id': 7, 'retry': 3000}
        """
        stored: StoredMessage = {"data": self.data}
        if self.type is not None:
            stored["type"] = self.type
        if self.id is not None:
            stored["id"] = self.id
        if self.retry is not None:
            stored["retry"] = self.retry
        return stored

    def __str__(self) -> str:
        r"""Serialize this event to the text of an event stream.

        Every conforming client parses this text to the attributes of this message
        (`WHATWG specification, section 9.2.6
        <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>`_).
        Outside an application context, Flask's default JSON provider serializes the data.

        >>> str(Message({"n": 1}, type="count", id=7))
        'event:count\ndata:{"n": 1}\nid:7\n\n'
        >>> str(Message("two\nlines"))
        'data:two\ndata:lines\n\n'
        """
        return _to_text(self, json.dumps)

    def __repr__(self) -> str:
        given = {key: value for key, value in self.to_dict().items() if key != "data"}
        arguments = [repr(self.data), *(f"{key}={value!r}" for key, value in given.items())]
        return f"{self.__class__.__name__}({', '.join(arguments)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self.to_dict() == other.to_dict()


Message.__module__ = "flask_sse"


def encode(message: Message, provider: JSONProvider) -> bytes:
    """Return *message* as streams carry it.

    :raises TypeError: if the provider can't serialize the data.
    :raises ValueError: if the text has a lone surrogate, which UTF-8 can't encode.
    """
    return _utf8(_to_text(message, provider.dumps))


def to_payload(message: Message, provider: JSONProvider) -> bytes:
    """Return *message* as it is published to Redis: JSON, in UTF-8.

    A message that can't be encoded fails here, in the publisher, and not in the
    streams of the listeners.

    :raises TypeError: like :func:`encode`.
    :raises ValueError: like :func:`encode`.
    """
    encode(message, provider)
    return _utf8(provider.dumps(message.to_dict()))


def split_payload(message: Message, provider: JSONProvider) -> tuple[bytes, bytes]:
    """Return the result of :func:`to_payload` in two parts; Redis puts the id between them.

    :raises TypeError: like :func:`encode`.
    :raises ValueError: like :func:`encode`.
    """
    message.id = _ID_MARK
    head, _, tail = to_payload(message, provider).partition(_ID_MARK.encode())
    return head, tail


def to_frame(payload: bytes, provider: JSONProvider) -> bytes:
    """Return a stored event as streams carry it, like :func:`encode` of :func:`from_payload`.

    :raises ValueError: like :func:`from_payload`.
    :raises TypeError: like :func:`from_payload`.
    """
    stored = _loaded(payload, provider)
    kind, number, retry = stored.get("type"), stored.get("id"), stored.get("retry")
    # Nearly all events have no more than a type that is right, and need no conversion.
    if number is None and retry is None and (kind is None or _is_plain(kind)):
        return _utf8(_format(stored["data"], kind, None, None, provider.dumps))
    return encode(Message(stored["data"], kind, number, retry), provider)


def from_payload(payload: bytes, provider: JSONProvider) -> Message:
    """Return the message that any kind of publisher has stored.

    Unknown keys are ignored, so that later versions can add keys. The others are
    converted and checked like the parameters of :class:`Message`.

    :raises ValueError: if it is not a JSON object with ``data``, or one of its values
        can't be part of an event.
    :raises TypeError: if one of its values has a type that can't be converted.
    """
    stored = _loaded(payload, provider)
    return Message(stored["data"], stored.get("type"), stored.get("id"), stored.get("retry"))


def _loaded(payload: bytes, provider: JSONProvider) -> dict[str, Any]:
    # Python would look for the encoding first; no other one begins like this.
    loaded = provider.loads(
        payload.decode("utf-8", "surrogatepass") if payload.startswith(b'{"') else payload
    )
    if not isinstance(loaded, dict) or "data" not in loaded:
        raise ValueError('not a JSON object with the key "data"')
    return cast("dict[str, Any]", loaded)  # a JSON object has no other keys


def _is_plain(kind: object) -> bool:
    return type(kind) is str and "\r" not in kind and "\n" not in kind


def _to_text(message: Message, dumps: Callable[[Any], str]) -> str:
    return _format(message.data, message.type, message.id, message.retry, dumps)


def _format(
    data: object,
    kind: str | None,
    number: str | int | None,
    retry: int | None,
    dumps: Callable[[Any], str],
) -> str:
    text = data if isinstance(data, str) else dumps(data)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    parts = "" if kind is None else _line("event", str(kind))
    if "\n" in text:
        parts += "".join([_line("data", line) for line in text.split("\n")])
    else:
        parts += _line("data", text)
    if number is not None:
        parts += _line("id", str(number))
    if retry is not None:
        parts += _line("retry", str(retry))
    return parts + "\n"


def _line(field: str, value: str) -> str:
    # The client drops one space after the colon, so a value with a leading space needs another.
    return f"{field}: {value}\n" if value.startswith(" ") else f"{field}:{value}\n"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the event contains the lone surrogate {text[error.start]!r}, which UTF-8 can't "
            f"encode; decode the text with errors='replace' at its source"
        ) from error


def _convert_type(value: object) -> str | float:
    text = _convert("type", value)
    if isinstance(text, str) and ("\r" in text or "\n" in text):
        raise ValueError(f"type must not contain a line break, but {value!r} does")
    return text


def _convert_id(value: object) -> str | float:
    text = _convert("id", value)
    if isinstance(text, str) and not {"\r", "\n", "\0"}.isdisjoint(text):
        raise ValueError(f"id must not contain a line break or a NUL character, but {value!r} does")
    return text


def _convert_retry(value: object) -> int | None:
    if value is True:
        raise TypeError(f"retry must be {_TYPES['retry']}, not True")
    number = _convert("retry", value)
    if number == "":
        return None
    try:
        milliseconds = int(number)
    except ValueError:
        raise ValueError(f"retry must be a number of milliseconds, not {value!r}") from None
    if milliseconds < 0:
        raise ValueError(f"retry must be 0 milliseconds or more, not {value!r}")
    return milliseconds


def _convert(name: str, value: object) -> str | float:
    """Convert a value to the string or number that 1.0 delivered.

    1.0 stored values as JSON, and wrote the decoded values with `str`.
    """
    if isinstance(value, str):
        # For a member of a string enumeration, this is the plain string, as in JSON.
        return str.__str__(value)
    if value is True:
        return "True"
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        # JSON can't represent the others.
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} must be text, or bytes in UTF-8, not {value!r}") from error
    return _convert_by_json(name, value)


def _convert_by_json(name: str, value: object) -> str:
    try:
        text: object = json.loads(json.dumps(value))
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise TypeError(f"{name} must be {_TYPES[name]}, not {value!r}")
    return text


_ID_MARK: Final = secrets.token_hex(16)
"""A placeholder for an unknown id. Data can't contain it, because it is never published."""
_TYPES: Final = {
    "type": "a str or None",
    "id": "a str, an int or None",
    "retry": "an int (milliseconds) or None",
}
_CONVERSIONS: Final[dict[str, Callable[[object], object]]] = {
    "type": _convert_type,
    "id": _convert_id,
    "retry": _convert_retry,
}
