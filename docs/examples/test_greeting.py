"""Tests of an application that publishes and streams, without a Redis."""

from collections.abc import Iterator

import pytest
from flask import Flask
from readme import app as greeter

from flask_sse import Message, sse


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Flask:
    """Return the application, with its events inside of this process."""
    monkeypatch.setitem(greeter.config, "SSE_REDIS_URL", "memory://")
    return greeter


@pytest.fixture
def published(app: Flask, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Return what the application publishes, in a list that grows."""
    messages: list[Message] = []

    def publish(
        data: object,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        channel: str = "sse",
    ) -> int:
        messages.append(Message(data, type, id, retry))
        return 1

    monkeypatch.setattr(sse, "publish", publish)
    return messages


@pytest.fixture
def stream(app: Flask) -> Iterator[Iterator[bytes]]:
    """Return an open event stream: its first piece came, so it is subscribed."""
    response = app.test_client().get("/stream")
    pieces = response.iter_encoded()
    next(pieces)
    yield pieces
    response.close()


def test_hello_publishes_a_greeting(app: Flask, published: list[Message]) -> None:
    """Look at what is published, and send nothing."""
    app.test_client().get("/hello")
    assert published == [Message({"message": "Hello!"}, type="greeting")]


def test_greeting_reaches_the_page(app: Flask, stream: Iterator[bytes]) -> None:
    """Look at what the browser gets."""
    app.test_client().get("/hello")
    assert next(stream) == b'event:greeting\ndata:{"message": "Hello!"}\n\n'
