"""Test an application that publishes, without Redis."""

from collections.abc import Callable

from app import app
from flask import Flask

from flask_sse import Message
from flask_sse.testing import Harness

GREETING = Message({"message": "Hello!"}, type="greeting")


def test_hello_publishes_a_greeting(sse_harness: Callable[[Flask], Harness]) -> None:
    """Check what is published, and on which channel."""
    harness = sse_harness(app)
    app.test_client().get("/hello")
    assert harness.published == [("sse", GREETING)]


def test_greeting_reaches_the_page(sse_harness: Callable[[Flask], Harness]) -> None:
    """Check what the browser receives."""
    stream = sse_harness(app).open()
    app.test_client().get("/hello")
    assert stream.get() == GREETING
