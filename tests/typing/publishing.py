"""How a typed application publishes; checked by mypy and by pyright, never run."""

from dataclasses import dataclass
from datetime import date
from typing import Any, TypedDict, assert_type
from uuid import UUID

from flask_sse import Message, sse


class Greeting(TypedDict):
    """What an application says of its own event."""

    message: str


@dataclass
class Login:
    """Flask's JSON provider knows dataclasses, dates and UUIDs."""

    user: UUID
    day: date


def publish_to_the_default_channel(greeting: Greeting, login: Login) -> None:
    """Data of any kind is accepted, by position and by name."""
    assert_type(sse.publish("Hello!"), int)
    assert_type(sse.publish({"message": "Hello!"}, type="greeting"), int)
    sse.publish(greeting, "greeting")
    sse.publish(login)
    sse.publish([1, 2.5, None, True])
    sse.publish(data=None)


def publish_with_every_argument() -> None:
    """An id may be a number; whatever may be left out may also be `None`."""
    sse.publish("Hello!", type="greeting", id="42", retry=3000, channel="users.social")
    sse.publish("Hello!", "greeting", 42, 3000, "users.social")
    sse.publish("Hello!", type=None, id=None, retry=None)


def make_a_message(greeting: Greeting) -> None:
    """The attributes of a message have the types of its parameters."""
    message = Message(greeting, type="greeting", id=42, retry=3000)
    assert_type(message, Message)
    assert_type(message.data, Any)
    assert_type(message.type, str | None)
    assert_type(message.id, str | int | None)
    assert_type(message.retry, int | None)
    assert_type(str(message), str)
    assert_type(message == Message("Hello!"), bool)


def look_into_what_is_stored(message: Message) -> None:
    """The stored form is a typed dictionary."""
    stored = message.to_dict()
    assert_type(stored["data"], Any)
    assert_type(stored.get("type"), str | None)
    assert_type(stored.get("id"), str | int | None)
    assert_type(stored.get("retry"), int | None)
