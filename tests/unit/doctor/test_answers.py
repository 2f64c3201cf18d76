"""How `flask sse doctor --url` handles answers that real servers rarely give.

The events are in memory, so everything except the arrival of events is checked.
"""

import gzip
import json
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Final

import pytest
from flask import Flask

from tests.support.answering import Answer, answering, serving, streaming

_ORIGIN: Final = "https://app.example"
_CACHING: Final = {"Cache-Control": "no-store, no-transform"}
_END: Final = {"first byte": "fail"}
_OLD: Final = {"url": "warn", "HTTP version": "warn"}
"""Findings for every server of these tests, which use HTTP/1.0."""

Examine = Callable[..., tuple[dict[str, str], str]]


@pytest.fixture
def examine(make_app: Callable[..., Flask]) -> Examine:
    """Return a function that returns the bad findings, and all output."""
    app = make_app(REDIS_URL="memory://", SSE_KEEPALIVE=0.1)

    def run(*answers: Answer) -> tuple[dict[str, str], str]:
        with serving(*answers) as (url, _):
            arguments = ["--json", "--patience", "1", "--origin", _ORIGIN, "--url", url]
            done = app.test_cli_runner().invoke(args=["sse", "doctor", *arguments])
        findings = [json.loads(line) for line in done.stdout.splitlines()]
        bad = {
            one["check"]: one["level"]
            for one in findings
            # The machine may be slow.
            if one["level"] != "ok" and not one["remedy"].startswith("find out what delays it")
        }
        bad.pop("CORS", None)
        return bad, done.stdout

    return run


def _garbage(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"SSH-2.0-test\r\n")


def test_good_answer(examine: Examine) -> None:
    """A stream that stays open and has comments is good, as far as can be seen."""
    commented = streaming(b":\n", b":\n" * 9, stays_open=True, headers=_CACHING)
    bad, said = examine(commented)
    assert bad == {**_OLD, "buffering": "warn", "keep-alive": "fail"}
    assert "6 at the same time are served" in said
    assert "no comment arrived within 1.1 s" in said


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (streaming(b":\n", headers=_CACHING), "the stream ends right after it"),
        (streaming(b"retry:50\n", headers=_CACHING), "asks to reconnect in 50 ms"),
        (streaming(headers=_CACHING), "the stream ended before it"),
        (streaming(stays_open=True, headers=_CACHING), "none arrived within 1 s"),
    ],
)
def test_stream_that_does_not_begin(examine: Examine, answer: Answer, found: str) -> None:
    """A stream that ends at once, or never begins, is found."""
    bad, said = examine(answer)
    assert bad == {**_OLD, **_END}
    assert found in said


@pytest.mark.parametrize(
    ("server", "found"),
    [
        ("Werkzeug/3.1", "Flask's own server"),
        ("gunicorn", "gunicorn Python"),
    ],
)
def test_servers(examine: Examine, server: str, found: str) -> None:
    """A development server is found, and a gunicorn that keeps the connection."""
    bad, said = examine(streaming(server=server, headers=_CACHING))
    assert bad == {**_OLD, **_END, "server": "warn"}
    assert found in said


def test_unknown_compression(examine: Examine) -> None:
    """An unreadable compression is found, and the other checks are made without it."""
    compressed = streaming(b"\x0b", headers={**_CACHING, "Content-Encoding": "br"})
    bad, said = examine(compressed, streaming(headers=_CACHING))
    assert bad == {**_OLD, **_END, "compression": "fail"}
    assert "compresses the stream with br" in said


@pytest.mark.parametrize("name", ["br", "utf-8"])
def test_compression_that_is_always_there(examine: Examine, name: str) -> None:
    """If the stream can't be read in any form, the doctor says so and does not read garbage."""
    unreadable = {**_CACHING, "Content-Encoding": name}
    bad, said = examine(streaming(b"\x0b" * 99, stays_open=True, headers=unreadable))
    assert bad == {**_OLD, **_END, "compression": "fail"}
    assert f"it can't be read: the stream is compressed with {name}, even for a client" in said


def test_error_instead_of_a_plain_stream(examine: Examine) -> None:
    """The second connection may be answered in another way than the first."""
    bad, said = examine(
        streaming(b"\x0b", headers={**_CACHING, "Content-Encoding": "br"}), answering(503)
    )
    assert bad == {**_OLD, "compression": "fail", "status": "fail"}
    assert "503" in said


def test_raw_deflate(examine: Examine) -> None:
    """A body without the header of zlib is read, as browsers do it."""
    compress = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = compress.compress(b":\n") + compress.flush(zlib.Z_SYNC_FLUSH)
    deflated = {**_CACHING, "Content-Encoding": "deflate"}
    bad, said = examine(streaming(body, stays_open=True, headers=deflated))
    assert bad == {**_OLD, "compression": "fail", "buffering": "warn", "keep-alive": "fail"}
    assert "6 at the same time are served" in said


def test_wrong_compression(examine: Examine) -> None:
    """A body that is not compressed as its head says is found, from the first byte on."""
    # No block of deflate begins like this.
    damaged = gzip.compress(b"")[:10] + b"\xff" * 30
    zipped = {**_CACHING, "Content-Encoding": "gzip"}
    bad, said = examine(streaming(b":\n" * 9, stays_open=True, headers=zipped))
    assert bad == {**_OLD, **_END, "compression": "fail"}
    assert "it can't be read: HTTPException: " in said
    assert "has the header Content-Encoding: gzip, but its body can't be decompressed" in said
    open_zip = streaming(_flushed(b":\n"), stays_open=True, headers=zipped)
    bad, said = examine(open_zip, streaming(damaged, stays_open=True, headers=zipped))
    assert bad["several streams"] == "fail"
    assert "number 2 can't be read: HTTPException" in said


def _flushed(text: bytes) -> bytes:
    """Return text as the start of a gzip stream."""
    compress = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    return compress.compress(text) + compress.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, "Access-Control-Allow-Origin is none"),
        ({"Access-Control-Allow-Origin": "*"}, "may connect, without cookies"),
        (
            {
                "Access-Control-Allow-Origin": _ORIGIN,
                "Access-Control-Allow-Credentials": "true",
            },
            "may connect, with cookies",
        ),
    ],
)
def test_origins(examine: Examine, headers: dict[str, str], found: str) -> None:
    """The doctor says what a page from another origin may do."""
    _, said = examine(streaming(headers=headers))
    assert found in said


def test_caching(examine: Examine) -> None:
    """A response that comes from a cache is found."""
    bad, _ = examine(streaming(headers={**_CACHING, "Age": "3"}))
    assert bad == {**_OLD, **_END, "caching": "warn"}


@pytest.mark.parametrize(
    ("answers", "check", "found"),
    [
        ([answering(204)], "status", "this tells an EventSource to stop"),
        ([answering(401)], "status", "log in with --header"),
        ([answering(418)], "status", "an EventSource gives up for good"),
        ([answering(303, "/login"), answering(200)], "content type", "after a redirect"),
        ([_garbage], "connection", "the answer is not HTTP"),
    ],
)
def test_no_stream(examine: Examine, answers: list[Answer], check: str, found: str) -> None:
    """Answers that end an EventSource for good are found, with a remedy."""
    bad, said = examine(*answers)
    assert bad == {"url": "warn", check: "fail"}
    assert found in said


def test_other_streams_end(examine: Examine) -> None:
    """Streams that are closed while another one stays are found."""
    stays = streaming(b":\n", stays_open=True, headers=_CACHING)
    bad, said = examine(stays, streaming(b"retry:50\n", headers=_CACHING))
    assert bad == {**_OLD, "buffering": "warn", "several streams": "fail", "keep-alive": "fail"}
    assert "number 2 ends at once" in said
