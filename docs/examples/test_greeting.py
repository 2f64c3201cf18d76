"""Tests of an application that publishes, without a Redis."""

from collections.abc import Callable

from flask import Flask
from readme import app

from flask_sse import Message
from flask_sse.testing import Harness

GREETING = Message({"message": "Hello!"}, type="greeting")


def test_hello_publishes_a_greeting(sse_harness: Callable[[Flask], Harness]) -> None:
    """Look at what is published, and where."""
    harness = sse_harness(app)
    app.test_client().get("/hello")
    assert harness.published == [("sse", GREETING)]


def test_greeting_reaches_the_page(sse_harness: Callable[[Flask], Harness]) -> None:
    """Look at what the browser gets."""
    stream = sse_harness(app).open()
    app.test_client().get("/hello")
    assert stream.get() == GREETING
