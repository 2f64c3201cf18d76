"""What a type checker knows of Flask-SSE."""

from collections.abc import Iterator
from typing import TypedDict

from flask_sse import Message, sse


class Progress(TypedDict):
    """The data of an event, with a type that the application has given it."""

    page: int
    pages: int


def report(progress: Progress) -> int:
    """Publish something typed; the result is an `int`."""
    return sse.publish(progress, type="progress", channel="export")


def pages(channel: str = "export") -> Iterator[int]:
    """Read it back; `message` is a `Message`, whose data may be anything."""
    for message in sse.messages(channel):
        yield page(message)


def page(message: Message) -> int:
    """Say what the data is where it comes in."""
    progress: Progress = message.data
    return progress["page"]
