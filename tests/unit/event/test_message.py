"""The message: its text, its stored form, its checks."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import httpx
import pytest
import sseclient
from flask import Flask
from flask.json.provider import DefaultJSONProvider
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date

from flask_sse import Message
from tests.support.parser import Event, parse

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message("foo"), "data:foo\n\n"),
        (Message("foo", type="t", id="i", retry=5), "event:t\ndata:foo\nid:i\nretry:5\n\n"),
        (Message("a\nb"), "data:a\ndata:b\n\n"),
        (Message("a\r\nb\rc"), "data:a\ndata:b\ndata:c\n\n"),
        (Message("a\u2028b\x85c\x0bd\x0ce\x1cf"), "data:a\u2028b\x85c\x0bd\x0ce\x1cf\n\n"),
        (Message(" foo"), "data:  foo\n\n"),
        (Message("a\n b"), "data:a\ndata:  b\n\n"),
        (Message(""), "data:\n\n"),
        (Message("a\n"), "data:a\ndata:\n\n"),
        (Message("a", type=" t"), "event:  t\ndata:a\n\n"),
        (Message("a", id=0), "data:a\nid:0\n\n"),
        (Message("a", id=""), "data:a\nid:\n\n"),
        (Message("a", retry=0), "data:a\nretry:0\n\n"),
        (Message({"n": [1, None]}), 'data:{"n": [1, null]}\n\n'),
        (Message(None), "data:null\n\n"),
        (Message(1), "data:1\n\n"),
    ],
)
def test_text(message: Message, text: str) -> None:
    """Each rule of the format, by an example."""
    assert str(message) == text


@pytest.mark.parametrize(
    ("message", "stored"),
    [
        (Message("foo"), {"data": "foo"}),
        (Message({"a": 1}, type="t"), {"data": {"a": 1}, "type": "t"}),
        (Message("", id=0, retry=0), {"data": "", "id": 0, "retry": 0}),
        (Message("", type="", id=""), {"data": "", "type": "", "id": ""}),
    ],
)
def test_to_dict_is_minimal(message: Message, stored: dict[str, object]) -> None:
    """The data is always stored, the other attributes only if they are given."""
    assert message.to_dict() == stored


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message("foo"), "Message('foo')"),
        (Message("foo", type="t"), "Message('foo', type='t')"),
        (Message([1], id=7, retry=0), "Message([1], id=7, retry=0)"),
    ],
)
def test_repr(message: Message, text: str) -> None:
    """The representation is an expression that makes the same message."""
    assert repr(message) == text
    assert eval(text, {"Message": Message}) == message


def test_equality_is_by_value() -> None:
    """Two messages are equal if all of their attributes are."""
    assert Message("a", type="t", id=1, retry=2) == Message("a", type="t", id=1, retry=2)
    assert Message("a") != Message("b")
    assert Message("a") != Message("a", type="t")
    assert Message("a") != "a"


def test_attributes_bear_the_names_of_the_parameters() -> None:
    """All four are attributes, which are `None` by default."""
    message = Message("a", retry=3)
    assert (message.data, message.type, message.id, message.retry) == ("a", None, None, 3)


ID = UUID("12345678-1234-5678-1234-567812345678")
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


class Kind(str, Enum):  # noqa: UP042 - StrEnum has no such members
    """A string enumeration of the old kind, for which `str` returns another text."""

    NEWS = "news"


class Level(IntEnum):
    """Numbers with names."""

    HIGH = 3


CONVERTED: list[tuple[dict[str, Any], object, str]] = [
    ({"type": 12}, 12, "event:12\ndata:a\n\n"),
    ({"type": 1.5}, 1.5, "event:1.5\ndata:a\n\n"),
    ({"type": b"caf\xc3\xa9"}, "café", "event:café\ndata:a\n\n"),
    ({"type": ID}, str(ID), f"event:{ID}\ndata:a\n\n"),
    ({"type": Kind.NEWS}, "news", "event:news\ndata:a\n\n"),
    ({"type": True}, "True", "event:True\ndata:a\n\n"),
    ({"type": False}, None, "data:a\n\n"),
    ({"id": 1.5}, 1.5, "data:a\nid:1.5\n\n"),
    ({"id": float("inf")}, "inf", "data:a\nid:inf\n\n"),
    ({"id": b"7"}, "7", "data:a\nid:7\n\n"),
    ({"id": ID}, str(ID), f"data:a\nid:{ID}\n\n"),
    ({"id": Decimal("2.50")}, "2.50", "data:a\nid:2.50\n\n"),
    ({"id": NEW_YEAR}, http_date(NEW_YEAR), "data:a\nid:Fri, 01 Jan 2027 00:00:00 GMT\n\n"),
    ({"id": Level.HIGH}, 3, "data:a\nid:3\n\n"),
    ({"id": True}, "True", "data:a\nid:True\n\n"),
    ({"id": False}, None, "data:a\n\n"),
    ({"retry": "5000"}, 5000, "data:a\nretry:5000\n\n"),
    ({"retry": b"5000"}, 5000, "data:a\nretry:5000\n\n"),
    ({"retry": 1000.0}, 1000, "data:a\nretry:1000\n\n"),
    ({"retry": 1000.7}, 1000, "data:a\nretry:1000\n\n"),
    ({"retry": Decimal(5)}, 5, "data:a\nretry:5\n\n"),
    ({"retry": ""}, None, "data:a\n\n"),
    ({"retry": False}, None, "data:a\n\n"),
]


@pytest.mark.parametrize(("arguments", "value", "text"), CONVERTED)
def test_other_types_are_converted(arguments: dict[str, Any], value: object, text: str) -> None:
    """Values that 1.0 could deliver are delivered, even if a type checker refuses them."""
    [name] = arguments
    message = Message("a", **arguments)
    assigned = Message("a")
    setattr(assigned, name, arguments[name])
    assert getattr(message, name) == getattr(assigned, name) == value
    assert type(getattr(message, name)) is type(value)
    assert message.to_dict() == ({"data": "a"} if value is None else {"data": "a", name: value})
    assert str(message) == text


def test_data_is_not_converted() -> None:
    """`False` is data like any other."""
    assert Message(False).to_dict() == {"data": False}
    assert str(Message(False)) == "data:false\n\n"


def test_the_applications_provider_converts() -> None:
    """Values that the JSON provider converts to strings may be a type or an id."""

    class Provider(DefaultJSONProvider):
        @staticmethod
        def default(o: Any) -> Any:
            return f"<{o!s}>"

    app = Flask("tests")
    app.json = Provider(app)
    with app.app_context():
        message = Message("a", type=ID, id=NEW_YEAR.date())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert (message.type, message.id) == (f"<{ID}>", "<2027-01-01>")


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"type": "a\nb"}, ValueError, "type must not contain a line break"),
    ({"type": "a\rb"}, ValueError, "type must not contain a line break"),
    ({"type": b"a\nb"}, ValueError, "type must not contain a line break"),
    ({"type": b"\xff"}, ValueError, "type must be text, or bytes in UTF-8, not b'.xff'"),
    ({"type": ["a"]}, TypeError, r"type must be a str or None, not \['a'\]"),
    ({"type": {}}, TypeError, "type must be a str or None, not {}"),
    ({"type": object()}, TypeError, "type must be a str or None, not <object"),
    ({"id": "a\nb"}, ValueError, "id must not contain a line break or a NUL"),
    ({"id": "a\rb"}, ValueError, "id must not contain a line break or a NUL"),
    ({"id": "a\0b"}, ValueError, "id must not contain a line break or a NUL"),
    ({"id": b"a\0b"}, ValueError, "id must not contain a line break or a NUL"),
    ({"id": b"\xff"}, ValueError, "id must be text, or bytes in UTF-8"),
    ({"id": [1]}, TypeError, r"id must be a str, an int or None, not \[1\]"),
    ({"id": NEW_YEAR.time()}, TypeError, "id must be a str, an int or None, not datetime.time"),
    ({"retry": -1}, ValueError, "retry must be 0 milliseconds or more, not -1"),
    ({"retry": "-1"}, ValueError, "retry must be 0 milliseconds or more, not '-1'"),
    ({"retry": -0.5e3}, ValueError, "retry must be 0 milliseconds or more, not -500.0"),
    ({"retry": "soon"}, ValueError, "retry must be a number of milliseconds, not 'soon'"),
    ({"retry": "9" * 5000}, ValueError, "retry must be a number of milliseconds, not '999"),
    ({"retry": float("nan")}, ValueError, "retry must be a number of milliseconds, not nan"),
    ({"retry": float("inf")}, ValueError, "retry must be a number of milliseconds, not inf"),
    ({"retry": ID}, ValueError, "retry must be a number of milliseconds, not UUID"),
    ({"retry": True}, TypeError, r"retry must be an int \(milliseconds\) or None, not True"),
    ({"retry": [5]}, TypeError, r"retry must be an int \(milliseconds\) or None, not \[5\]"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_bad_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """Values that the format can't carry are refused, by name, when the message is made."""
    with pytest.raises(error, match=text):
        Message("a", **arguments)


@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_bad_attributes_are_refused(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """An attribute refuses the same values as its parameter."""
    message = Message("a", type="t", id="i", retry=1)
    for name, value in arguments.items():
        with pytest.raises(error, match=text):
            setattr(message, name, value)
    assert message == Message("a", type="t", id="i", retry=1)


def test_data_is_serialized_by_the_applications_provider() -> None:
    """Within an application context, the application's JSON provider is used."""

    class Provider(DefaultJSONProvider):
        compact = True

        def dumps(self, obj: Any, **kwargs: Any) -> str:
            return f"<{super().dumps(obj, **kwargs)}>"

    app = Flask("tests")
    app.json = Provider(app)
    with app.app_context():
        assert str(Message([1])) == "data:<[1]>\n\n"
        assert str(Message("text")) == "data:text\n\n"


def test_data_that_json_cannot_express_is_a_type_error() -> None:
    """The provider's own error is raised."""
    with pytest.raises(TypeError):
        str(Message(object()))


def test_a_subclass_names_itself() -> None:
    """A subclass has its own text, form and name."""

    class Notice(Message):
        pass

    assert repr(Notice("a")) == "Notice('a')"
    assert Message.__module__ == "flask_sse"


@given(
    data=TEXT,
    type=st.none() | LINE,
    id=st.none() | LINE.filter(lambda text: "\0" not in text) | st.integers(),
    retry=st.none() | st.integers(min_value=0, max_value=10**9),
)
def test_every_client_reads_what_was_meant(
    data: str, type: str | None, id: str | int | None, retry: int | None
) -> None:
    """Third-party parsers and a strict parser agree on the content of any message."""
    text = str(Message(data, type=type, id=id, retry=retry))
    meant = Event(
        type or "message",
        data.replace("\r\n", "\n").replace("\r", "\n"),
        "" if id is None else str(id),
    )
    assert parse(text) == [meant]
    assert _parse_with_httpx_sse(text) == [(meant, retry)]
    assert _parse_with_sseclient(text) == [(meant, retry)]


@given(data=st.lists(st.recursive(st.none() | st.booleans() | st.integers() | TEXT, st.lists)))
def test_json_data_comes_back(data: object) -> None:
    """Data that is not a string arrives as JSON of the same value."""
    [event] = parse(str(Message(data)))
    assert json.loads(event.data) == data


def _parse_with_httpx_sse(text: str) -> list[tuple[Event, int | None]]:
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    source = EventSource(httpx.Response(200, headers=headers, content=text.encode()))
    return [(Event(e.event, e.data, e.id), e.retry) for e in source.iter_sse()]


def _parse_with_sseclient(text: str) -> list[tuple[Event, int | None]]:
    def pieces() -> Iterator[bytes]:
        yield text.encode()

    return [
        (Event(e.event, e.data, e.id or ""), None if e.retry is None else int(e.retry))
        for e in sseclient.SSEClient(pieces()).events()
    ]
