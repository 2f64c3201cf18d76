"""What a type checker knows about Flask-SSE."""

from collections.abc import Iterator
from typing import TypedDict

from flask_sse import Message, sse


class Progress(TypedDict):
    """The data of an event, with a type defined by the application."""

    page: int
    pages: int


def report(progress: Progress) -> int:
    """Publish typed data; the result is an `int`."""
    return sse.publish(progress, type="progress", channel="export")


def pages(channel: str = "export") -> Iterator[int]:
    """Read it back; `message` is a `Message`, whose data can be anything."""
    for message in sse.messages(channel):
        yield page(message)


def page(message: Message) -> int:
    """Declare the type of the data where you receive it."""
    progress: Progress = message.data
    return progress["page"]
