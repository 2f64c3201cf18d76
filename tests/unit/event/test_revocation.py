"""Which streams a revocation ends, and what its stored form can be."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse._event.channel_name import CONTROL, Key
from flask_sse._event.revocation import Revocation, check_client

NAMES: Final = st.one_of(st.none(), st.text(min_size=1))
MALFORMED: Final = [
    b"",
    b"\xff",
    b"nonsense",
    b"null",
    b"7",
    b"[]",
    b'"alice"',
    b"{}",
    b'{"client": null, "channel": null}',
    b'{"client": 7}',
    b'{"client": "alice", "channel": ["news"]}',
    b'{"user": "alice"}',
    b'{"channel": "\\ud800"}',
    b"[" * 100_000,
]


def test_which_streams_match() -> None:
    """Both names must match if there are two; a channel may be one of several."""
    alice, news = Revocation("alice"), Revocation(channel=b"news")
    both = Revocation("alice", b"news")
    several: list[Key] = [b"news", (b"chat", b"news")]
    for channels in several:
        assert alice.matches("alice", channels)
        assert not alice.matches("bob", channels)
        assert news.matches("bob", channels)
        assert both.matches("alice", channels)
        assert not both.matches("bob", channels)
    # A part of a name is another name.
    others: list[Key] = [b"news.old", b"new", (b"chat",)]
    for channels in others:
        assert alice.matches("alice", channels)
        assert not news.matches("alice", channels)
        assert not both.matches("alice", channels)


@given(NAMES, st.one_of(st.none(), st.binary(min_size=1)))
def test_the_stored_form(client: str | None, channel: bytes | None) -> None:
    """Any name comes through unchanged, also that of a channel which is not UTF-8."""
    revocation = Revocation(client, channel)
    if client is None and channel is None:
        with pytest.raises(ValueError, match="neither"):
            Revocation.from_payload(revocation.to_payload())
    else:
        payload = revocation.to_payload()
        assert payload.isascii()
        assert Revocation.from_payload(payload) == revocation


@pytest.mark.parametrize("payload", MALFORMED, ids=lambda payload: repr(payload[:20]))
def test_malformed_ones(payload: bytes) -> None:
    """They raise nothing but a ValueError, whoever has published them."""
    with pytest.raises(ValueError, match=r"."):
        Revocation.from_payload(payload)


def test_what_later_versions_may_add() -> None:
    """It is ignored: rather too many streams end than too few."""
    payload = json.dumps({"client": "alice", "reason": "logged out"}).encode()
    assert Revocation.from_payload(payload) == Revocation("alice")


def test_what_an_application_may_ask_for() -> None:
    """Names are converted like those of channels elsewhere."""
    assert Revocation.of("alice", None) == Revocation("alice")
    assert Revocation.of(None, "ümlaut") == Revocation(channel="ümlaut".encode())
    assert Revocation.of("alice", "news") == Revocation("alice", b"news")


@pytest.mark.parametrize(
    ("client", "channel", "error", "match"),
    [
        (None, None, TypeError, r"needs client=, channel= or both"),
        (7, None, TypeError, r"client must be a str, not 7; pass str\(\)"),
        ("", None, ValueError, r"client must not be empty"),
        ("x" * 257, None, ValueError, r"at most 256 characters, not 257"),
        ("alice", ["news"], TypeError, r"channel must be a str, not \['news'\]"),
        (None, CONTROL.decode(), ValueError, r"'flask-sse:control', which Flask-SSE uses itself"),
    ],
)
def test_wrong_arguments(client: Any, channel: Any, error: type[Exception], match: str) -> None:
    """Each error names the argument, its value and the remedy."""
    with pytest.raises(error, match=match):
        Revocation.of(client, channel)


def test_names_of_clients() -> None:
    """They have up to 256 characters of any kind."""
    for name in ("7", "alice@example.org", "\ud800", "x" * 256):
        assert check_client(name) == name
