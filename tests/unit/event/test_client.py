"""The client of `flask sse listen --url`: parsing and reconnecting."""

import gzip
import http.client
import zlib
from collections.abc import Callable
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse import Message
from flask_sse._event import channel_name
from flask_sse._event.client import follow, open_stream
from flask_sse._event.parser import Parsed, Parser
from tests.support.answering import answering, serving, streaming
from tests.support.parser import parse

_Seen = tuple[str, str, str]


def _seen(event: Parsed) -> _Seen:
    """Return an event as a page gets it: its type, its data and the last id."""
    return event.type or "message", event.data, event.last_id


def _parse(*pieces: bytes) -> list[_Seen]:
    parser = Parser()
    return [_seen(event) for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\n"
            b"data:second event\nid\n\ndata:  third\n\n",
            [
                ("message", "first event", "1"),
                ("message", "second event", ""),
                ("message", " third", ""),
            ],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        (b"data:test\n\ndata: test\n\n", [("message", "test", "")] * 2),
        (b"event: add\r\ndata: 73857293\r\n\r\n", [("add", "73857293", "")]),
        (b"event: nothing\n\ndata: x\n\n", [("message", "x", "")]),
        (b"\xef\xbb\xbfdata: x\rid: 2\0\r\runknown: 1\ndata: y\n\n", None),
    ],
)
def test_examples_of_the_specification(text: bytes, events: list[_Seen] | None) -> None:
    """The specification's examples give the specified results, at once and byte by byte."""
    expected = [("message", "x", ""), ("message", "y", "")] if events is None else events
    assert _parse(text) == expected
    assert _parse(*(bytes([byte]) for byte in text)) == expected


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 7))
def test_reads_what_is_written(data: str, size: int) -> None:
    """Published messages are parsed as the tests' own strict parser does it."""
    text = str(Message(data, type="kind", id=1)).encode()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert _parse(*pieces) == [tuple(event) for event in parse(text)]


def test_retry_and_comments() -> None:
    """`retry` is accepted if it has only digits, and comments are counted."""
    parser = Parser()
    assert parser.feed(b":\n:x\nretry:10\nretry:1e3\nretry:\n") == []
    assert (parser.retry, parser.comments) == (10, 2)


def test_reconnects_like_a_browser() -> None:
    """It waits as the stream says, sends the last id, and ends when it is told not to come back."""
    waited: list[float] = []
    opened: list[None] = []
    first = streaming(b"retry:20\nid:7\ndata:one\n\ndata:torn")
    with serving(first, streaming(b"data:two\n\n"), answering(204)) as (url, asked):
        events = follow(
            url, {"X-Test": "1"}, opened=lambda: opened.append(None), wait=waited.append
        )
        assert [_seen(event) for event in islice(events, 2)] == [
            ("message", "one", "7"),
            ("message", "two", "7"),
        ]
        assert next(events, None) is None
    assert waited == [0.02, 0.02]
    assert len(opened) == 2
    assert [request.headers["Last-Event-ID"] for request in asked] == [None, "7", "7"]
    assert {request.headers["X-Test"] for request in asked} == {"1"}


def test_reconnects_after_an_outage() -> None:
    """A server that stops for a while is tried again; one that never ran is an error."""
    with serving(streaming(b"data:one\n\n")) as (url, _):
        events = follow(url, wait=lambda _: None)
        assert next(events).data == "one"
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            raise KeyboardInterrupt

    with serving(streaming(b"data:one\n\n")) as (url, _):
        events = follow(url, wait=wait)
        assert next(events).data == "one"
    with pytest.raises(KeyboardInterrupt):
        next(events)
    assert waited == [3, 3]
    with pytest.raises(OSError, match="refused"):
        next(follow(url))


@pytest.mark.parametrize(
    ("retry", "waited"),
    [
        (b"retry:0\n", [0.1, 0.2, 0.4, 0.8, 1.6, 3, 3]),
        (b"retry:500\n", [0.5, 0.5, 0.5, 0.8, 1.6, 3, 3]),
        (b"retry:4000\n", [4] * 7),
        (b"", [3] * 7),
    ],
)
def test_streams_that_end_at_once(retry: bytes, waited: list[float]) -> None:
    """It waits longer each time a stream ends at once without an event."""
    with serving(*[streaming(retry)] * 7, streaming(b"data:x\n\n")) as (url, _):
        assert _waits(url) == waited


def test_streams_that_do_not_end_at_once() -> None:
    """A stream that has an event, or lasts, is followed by the pause that the stream says."""
    empty, full = streaming(b"retry:0\n"), streaming(b"data:x\n\n")
    with serving(empty, empty, full, empty, full) as (url, asked):
        assert _waits(url, events=2) == [0.1, 0.2, 0.01, 0.1]
        assert len(asked) == 5
    seconds = count()
    with serving(streaming(b"retry:20\n:\n"), empty, full) as (url, _):
        assert _waits(url, clock=lambda: next(seconds)) == [0.02, 0.01]


def test_server_that_is_away() -> None:
    """It waits longer each time there is no connection, also if the stream said `retry: 0`."""
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 4:
            raise KeyboardInterrupt

    with serving(streaming(b"retry:0\ndata:x\n\n")) as (url, _):
        events = follow(url, wait=wait)
        next(events)
    with pytest.raises(KeyboardInterrupt):
        next(events)
    assert waited == [0.01, 0.1, 0.2, 0.4]


@pytest.mark.parametrize(("digits", "pause"), [(15, 86_400), (16, 3), (5000, 3)])
def test_retry_of_many_digits(digits: int, pause: float) -> None:
    """An absurd `retry` is ignored or limited, and is not an error."""
    absurd = streaming(b"retry:" + b"9" * digits + b"\n")
    with serving(absurd, streaming(b"data:x\n\n")) as (url, _):
        assert _waits(url) == [pause]


def _waits(url: str, *, events: int = 1, clock: Callable[[], float] = lambda: 0) -> list[float]:
    """Follow a stream until it has had some events; return the pauses."""
    waited: list[float] = []
    assert len([*islice(follow(url, wait=waited.append, clock=clock), events)]) == events
    return waited


def test_redirects() -> None:
    """Redirects are followed, and a redirect to a page is not a stream."""
    with serving(answering(302, "/other?x=1"), streaming(b"data:x\n\n")) as (url, asked):
        assert next(follow(url)).data == "x"
        assert [request.path for request in asked] == ["/stream", "/other?x=1"]
    with (
        serving(answering(303, "/login"), answering(200)) as (url, _),
        pytest.raises(http.client.HTTPException, match="/login answers with text/html instead"),
    ):
        next(follow(url))
    with (
        serving(*[answering(301, "/stream")] * 21) as (url, _),
        pytest.raises(http.client.HTTPException, match="more than 20 times"),
    ):
        next(follow(url))


def _deflate(text: bytes, window_bits: int) -> bytes:
    compress = zlib.compressobj(wbits=window_bits)
    return compress.compress(text) + compress.flush()


@pytest.mark.parametrize(
    ("compression", "body"),
    [
        ("gzip", gzip.compress(b"data:x\n\n", mtime=0)),
        ("X-GZip", gzip.compress(b"data:x\n\n", mtime=0)),
        ("deflate", zlib.compress(b"data:x\n\n")),
        ("deflate", _deflate(b"data:x\n\n", 9)),
        ("deflate", _deflate(b"data:x\n\n", -zlib.MAX_WBITS)),
        ("gzip", zlib.compress(b"data:x\n\n", 0)),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 100])
def test_compressed(compression: str, body: bytes, size: int) -> None:
    """The oldest compressions are supported, with and without the header of zlib."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    with serving(streaming(*pieces, headers={"Content-Encoding": compression})) as (url, _):
        assert next(follow(url)).data == "x"


@pytest.mark.parametrize(
    "body", [b"data:x\n\n", gzip.compress(b"data:x\n\n", mtime=0)[:10] + b"\xff" * 20]
)
def test_compressed_wrongly(body: bytes) -> None:
    """A body that is not compressed as its head says raises an error that says so."""
    compressed = streaming(body, headers={"Content-Encoding": "gzip"})
    with (
        serving(compressed) as (url, _),
        pytest.raises(http.client.HTTPException, match="Content-Encoding: gzip, but its body"),
    ):
        next(follow(url))


def test_compressed_otherwise() -> None:
    """An unknown compression raises an error, and does not produce garbage."""
    with (
        serving(streaming(b"\x0b", headers={"Content-Encoding": "br"})) as (url, _),
        pytest.raises(http.client.HTTPException, match="compressed with br"),
    ):
        next(follow(url))


def test_addresses() -> None:
    """A login in the URL is sent, characters are encoded, and an invalid URL is refused."""
    with serving(streaming(b"data:x\n\n")) as (url, asked):
        address = url.replace("http://", "http://m%40x:%C3%A9@") + "?channel=ä b&c=%20"
        assert next(follow(address)).data == "x"
        assert asked[0].headers["Authorization"] == "Basic bUB4OsOp"
        assert asked[0].path == "/stream?channel=%C3%A4%20b&c=%20"
    with pytest.raises(ValueError, match="is not a URL"):
        open_stream("localhost:8000/stream", {})
    assert channel_name.in_url("http://h/s?channel=a&x=1#y", "b") == "http://h/s?x=1&channel=b"
