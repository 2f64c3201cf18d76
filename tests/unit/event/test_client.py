"""The client of `flask sse listen --url`: parsing and reconnecting."""

import gzip
import http.client
import zlib
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse import Message
from flask_sse._event_source import Event, Parser, follow, open_stream, with_channel
from tests.support.answering import answering, serving, streaming
from tests.support.parser import parse


def _parse(*pieces: bytes) -> list[Event]:
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)]


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
def test_examples_of_the_specification(
    text: bytes, events: list[tuple[str, str, str]] | None
) -> None:
    """The specification's examples give the specified results, at once and byte by byte."""
    expected = [("message", "x", ""), ("message", "y", "")] if events is None else events
    assert _parse(text) == [Event(*event) for event in expected]
    assert _parse(*(bytes([byte]) for byte in text)) == [Event(*event) for event in expected]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 7))
def test_reads_what_is_written(data: str, size: int) -> None:
    """Published messages are parsed as the tests' own strict parser does it."""
    text = str(Message(data, type="kind", id=1)).encode()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert [tuple(event) for event in _parse(*pieces)] == [tuple(event) for event in parse(text)]


def test_retry_and_comments() -> None:
    """`retry` is accepted if it has only digits, and comments are counted."""
    parser = Parser()
    assert parser.feed(b":\n:x\nretry:10\nretry:1e3\nretry:\n") == []
    assert (parser.retry, parser.comments) == (10, 2)


def test_reconnects_like_a_browser() -> None:
    """It waits as the stream says, sends the last id, and ends where a browser gives up."""
    waited: list[float] = []
    opened: list[None] = []
    first = streaming(b"retry:20\nid:7\ndata:one\n\ndata:torn")
    with serving(first, streaming(b"data:two\n\n"), answering(204)) as (url, asked):
        events = follow(
            url, {"X-Test": "1"}, opened=lambda: opened.append(None), wait=waited.append
        )
        assert list(islice(events, 2)) == [("message", "one", "7"), ("message", "two", "7")]
        with pytest.raises(http.client.HTTPException, match="answers 204"):
            next(events)
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


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed(compression: str) -> None:
    """The oldest compressions are supported."""
    text = b"data:x\n\n"
    body = gzip.compress(text) if compression == "gzip" else zlib.compress(text)
    with serving(streaming(body[:5], body[5:], headers={"Content-Encoding": compression})) as (
        url,
        _,
    ):
        assert next(follow(url)).data == "x"


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
    assert with_channel("http://h/s?channel=a&x=1#y", "b") == "http://h/s?x=1&channel=b"
