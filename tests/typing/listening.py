"""How a typed application listens; checked by mypy and by pyright, never run."""

from collections.abc import Generator, Iterator
from typing import assert_type

from flask import Response
from redis import Redis, StrictRedis

from flask_sse import Message, ServerSentEventsBlueprint, history, sse


def listen() -> None:
    """What is generated are messages."""
    for message in sse.messages():
        assert_type(message, Message)


def listen_to_a_channel_and_stop() -> None:
    """A generator can be closed, which an iterator could not."""
    messages = sse.messages(channel="users.social")
    assert_type(messages, Generator[Message, None, None])
    assert_type(next(messages), Message)
    messages.close()


def hand_the_messages_on() -> Iterator[Message]:
    """A generator of messages is an iterator of messages."""
    yield from sse.messages("users.social")


def stream() -> Response:
    """The view returns a response, which an application's own view may return too."""
    response = sse.stream()
    assert_type(response, Response)
    return response


def continue_from_a_position(blueprint: ServerSentEventsBlueprint) -> None:
    """Positions are text; another blueprint is named by keyword."""
    position = history.position("users", blueprint=blueprint)
    assert_type(position, str)
    messages = history.messages("users", after=position, blueprint=blueprint)
    assert_type(messages, Generator[Message, None, None])


def use_the_client() -> Redis:
    """The client is a `StrictRedis`, another name of `Redis`."""
    assert_type(sse.redis, StrictRedis)
    return sse.redis
