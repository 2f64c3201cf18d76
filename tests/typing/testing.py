"""How a typed test listens to streams; checked by mypy and by pyright, never run."""

from collections.abc import Callable, Mapping
from typing import Any, assert_type

from flask import Flask

from flask_sse import Message
from flask_sse.testing import (
    Harness,
    Published,
    ReceivedMessage,
    Stream,
    harness,
    in_memory,
    open_stream,
    record,
)


def use_the_fixture(sse_harness: Callable[[Flask], Harness], app: Flask) -> None:
    """What the fixture returns makes harnesses."""
    tested = sse_harness(app)
    stream = tested.open("news", client=app.test_client(), headers={"X-Key": "1"}, timeout=1)
    assert_type(stream, Stream)
    assert_type(stream.get(timeout=0.5), ReceivedMessage)
    assert_type(tested.published, list[Published])


def use_the_parts(app: Flask) -> None:
    """Each context manager gives what it makes."""
    with in_memory(app), record(app) as published, open_stream(app, "news") as stream:
        for message in stream:
            assert_type(message.data, str)
            assert_type(message.json, Any)
            assert_type(message == Message("x"), bool)
        assert_type(published[0].channel, str)
        assert_type(published[0].message, Message)
        assert_type(stream.last_event_id, str)
        assert_type(stream.channels, Mapping[str, bool | None])
        assert_type(stream.ended, set[str])
    with harness(app) as tested:
        assert_type(tested, Harness)
