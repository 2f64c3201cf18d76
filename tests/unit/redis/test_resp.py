"""The reader of Redis's protocol: the same replies, however the bytes are cut."""

import itertools

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from flask_sse._redis.resp import Reader, Reply


def encode(reply: Reply) -> bytes:
    """Return a reply as the specification of RESP writes it."""
    match reply:
        case None:
            return b"$-1\r\n"
        case int(number):
            return b":%d\r\n" % number
        case bytes(text):
            return b"$%d\r\n%b\r\n" % (len(text), text)
        case list(parts):
            return b"*%d\r\n%b" % (len(parts), b"".join(map(encode, parts)))
        case _:
            raise AssertionError(reply)


leaves = st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary()
replies: st.SearchStrategy[Reply] = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4))


@given(st.lists(replies, max_size=5), st.data())
def test_pieces_of_any_size(sent: list[Reply], data: st.DataObject) -> None:
    """The replies are read as they were sent, with the bytes in any pieces."""
    text = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    reader = Reader()
    received: list[Reply] = []
    for start, end in itertools.pairwise([0, *cuts, len(text)]):
        received += reader.feed(text[start:end])
    assert received == sent


def test_each_byte_alone() -> None:
    """A message that arrives slowly is read only when it is complete."""
    reader = Reader()
    text = encode([b"message", b"sse", b"\r\n$1\r\n"])
    for number in range(len(text) - 1):
        assert reader.feed(text[number : number + 1]) == []
    assert reader.feed(text[-1:]) == [[b"message", b"sse", b"\r\n$1\r\n"]]


def test_simple_strings_nothing_and_errors() -> None:
    """An error is a reply like others, and does not end the iteration."""
    reader = Reader()
    sent = b"+PONG\r\n*-1\r\n-NOPERM this user has no permissions\r\n:1\r\n"
    pong, nothing, error, one = reader.feed(sent)
    assert (pong, nothing, one) == (b"PONG", None, 1)
    assert isinstance(error, redis.ResponseError)
    assert str(error) == "NOPERM this user has no permissions"


@pytest.mark.parametrize("text", [b"HTTP/1.1 400 Bad Request\r\n", b"$many\r\n", b"*\r\n"])
def test_something_else_is_no_redis(text: bytes) -> None:
    """A server of another kind is refused, with what it has sent."""
    reader = Reader()
    one, error = reader.feed(b":1\r\n" + text)
    assert one == 1
    assert isinstance(error, redis.InvalidResponse)
    assert "not" in str(error)


def test_a_large_message_is_looked_at_once() -> None:
    """10 MB in small pieces are not searched again with each piece."""
    reader = Reader()
    reader.feed(b"$%d\r\n" % 10_000_000)
    piece = bytes(1000)
    for _ in range(10_000):
        assert not reader.feed(piece)
    [reply] = reader.feed(b"\r\n")
    assert reply == bytes(10_000_000)
