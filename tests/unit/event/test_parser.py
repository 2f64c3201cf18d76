"""The parser, compared with the specification's own examples."""

import pytest

from flask_sse._event.parser import Parsed, Parser


def parse(*pieces: bytes) -> list[Parsed]:
    """Parse a stream that arrives in these pieces."""
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)]


def plain(data: str) -> Parsed:
    """Return an event that has data and nothing else."""
    return Parsed(data, None, None, None)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [plain("YHOO\n+2\n10")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
            b"data:  third event\n\n",
            [
                Parsed("first event", None, "1", None, "1"),
                Parsed("second event", None, "", None),
                plain(" third event"),
            ],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [plain(""), plain("\n")]),
        (b"data:test\n\ndata: test\n\n", [plain("test"), plain("test")]),
        (b"event:add\ndata:1\nretry:10\n\n", [Parsed("1", "add", None, 10)]),
        (b"event:add\n\ndata:1\n\n", [plain("1")]),
        (b"retry:10\ndata:1\n\n", [plain("1")]),
        (b"data:1\nretry:x\nid:a\0b\nother:1\n\n", [plain("1")]),
        (b"\xef\xbb\xbfdata:1\n\n", [plain("1")]),
        (b"data:\xff\n\n", [plain("\ufffd")]),
        ("data:a\u2028b\x85c\x0bd\n\n".encode(), [plain("a\u2028b\x85c\x0bd")]),
        (b"data:1\r\rdata:2\r\n\r\ndata:3\n\n", [plain("1"), plain("2"), plain("3")]),
    ],
)
def test_a_stream_in_any_pieces(stream: bytes, events: list[Parsed]) -> None:
    """The result is the same with any pieces."""
    assert parse(stream) == events
    assert parse(*(bytes([byte]) for byte in stream)) == events


def test_when_to_reconnect() -> None:
    """The reconnection time belongs to the stream, with or without an event."""
    parser = Parser()
    assert parser.retry is None
    parser.feed(b"retry:10\n:\ndata:1\n\n")
    assert parser.retry == 10
    parser.feed(b"data:1\nretry:20\n\n")
    assert parser.retry == 20
