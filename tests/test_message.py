"""The message: its text, its stored form, its checks."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import sseclient
from flask import Flask
from flask.json.provider import DefaultJSONProvider
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st

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
    """The data is always stored, the rest where it is given."""
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
    """All four are attributes, `None` where nothing was given."""
    message = Message("a", retry=3)
    assert (message.data, message.type, message.id, message.retry) == ("a", None, None, 3)


BAD = [
    ({"type": "a\nb"}, ValueError, "type must not contain a line end"),
    ({"type": "a\rb"}, ValueError, "type must not contain a line end"),
    ({"type": 1}, TypeError, "type must be a str or None, not 1"),
    ({"id": "a\nb"}, ValueError, "id must not contain a line end or a NUL"),
    ({"id": "a\rb"}, ValueError, "id must not contain a line end or a NUL"),
    ({"id": "a\0b"}, ValueError, "id must not contain a line end or a NUL"),
    ({"id": True}, TypeError, "id must be a str, an int or None, not True"),
    ({"id": 1.5}, TypeError, "id must be a str, an int or None, not 1.5"),
    ({"retry": -1}, ValueError, "retry must be 0 milliseconds or more, not -1"),
    ({"retry": True}, TypeError, "retry must be an int"),
    ({"retry": "5"}, TypeError, "retry must be an int .* not '5'"),
    ({"retry": 5.0}, TypeError, "retry must be an int .* not 5.0"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_bad_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """What the format can't carry is refused, by name, when the message is made."""
    with pytest.raises(error, match=text):
        Message("a", **arguments)


@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_bad_attributes_are_refused(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """What a parameter can't be, its attribute can't become."""
    message = Message("a", type="t", id="i", retry=1)
    for name, value in arguments.items():
        with pytest.raises(error, match=text):
            setattr(message, name, value)
    assert message == Message("a", type="t", id="i", retry=1)


def test_data_is_serialized_by_the_applications_provider() -> None:
    """Within an application context its own JSON provider is asked."""

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
    """The provider's own error comes through."""
    with pytest.raises(TypeError):
        str(Message(object()))


def test_a_subclass_names_itself() -> None:
    """A subclass has a text, a form and a name of its own."""

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
    """Parsers by others, and a strict one, agree on what any message says."""
    text = str(Message(data, type=type, id=id, retry=retry))
    meant = Event(
        type or "message",
        data.replace("\r\n", "\n").replace("\r", "\n"),
        "" if id is None else str(id),
    )
    assert parse(text) == [meant]
    assert _parse_with_httpx_sse(text) == [(meant, retry)]
    assert _parse_with_sseclient(text) == [(meant, retry)]


@given(data=st.recursive(st.none() | st.booleans() | st.integers() | TEXT, st.lists))
def test_json_data_comes_back(data: object) -> None:
    """Data that is no string arrives as JSON of the same value."""
    [event] = parse(str(Message(data)))
    assert event.data == data if isinstance(data, str) else json.loads(event.data) == data


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
