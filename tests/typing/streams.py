"""How a typed application chooses channels in code; checked by mypy and by pyright, never run."""

from collections.abc import Generator, Iterable
from typing import assert_type

from flask import Flask, Response

from flask_sse import Message, ServerSentEventsBlueprint, history, streams
from flask_sse.history import ChannelMessage

app = Flask(__name__)


@app.get("/events")
def events() -> Response:
    """A view returns the stream, and may name its client and its age."""
    response = streams.stream(["news", "user.7"], client="alice", max_age=3600)
    assert_type(response, Response)
    return response


def open_other_streams(names: Iterable[str], blueprint: ServerSentEventsBlueprint) -> None:
    """Channels come in any iterable; what may be left out may also be `None`."""
    streams.stream(names)
    streams.stream({"news"}, client=None, max_age=None)
    streams.stream((name for name in names), max_age=0.5, blueprint=blueprint)


def render_a_page(blueprint: ServerSentEventsBlueprint) -> None:
    """A position is text."""
    assert_type(streams.position(["news", "user.7"]), str)
    streams.position(("news",), blueprint=blueprint)


def end_streams(blueprint: ServerSentEventsBlueprint) -> None:
    """Both functions return how many processes have been told."""
    assert_type(streams.disconnect(client="alice"), int)
    assert_type(streams.disconnect(channel="room"), int)
    streams.disconnect(client="alice", channel="room", blueprint=blueprint)
    assert_type(streams.end("job.7"), int)
    streams.end("job.7", blueprint=blueprint)


def follow_several_channels(names: list[str]) -> None:
    """Messages of several channels know their channel; those of one are as before."""
    several = history.messages(names, after=streams.position(names))
    assert_type(several, Generator[ChannelMessage, None, None])
    message = next(several)
    assert_type(message.channel, str)
    plain: Message = message
    assert_type(history.messages("news"), Generator[Message, None, None])
    assert_type(history.messages(), Generator[Message, None, None])
    assert_type(plain == ChannelMessage("news", "Hello!", id="1"), bool)
