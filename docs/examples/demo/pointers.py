"""A page to try Flask-SSE on: events, cursors, latency, and a connection that is resumed.

It uses the Redis that the environment names, or none at all. It is made for one process, which
knows the connections that its visitors may drop.
"""

import math
import os
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypedDict, cast

from flask import Flask, Response, abort, g, render_template, request
from werkzeug.exceptions import HTTPException

from flask_sse import presence, sse

CHANNELS: Final = {"sse": 5000, "live": 0}
"""The channels of the page, and how many events each of them keeps."""

BURST: Final = 1000
LONGEST_TEXT: Final = 280
LONGEST_NAME: Final = 32

app = Flask(__name__)
app.config["SSE_REDIS_URL"] = os.environ.get("REDIS_URL") or "memory://"
app.config["SSE_HISTORY"] = {**CHANNELS, "*": 0}
app.config["SSE_PRESENCE"] = ["live"]
app.config["SSE_RETRY"] = 2000
app.config["MAX_CONTENT_LENGTH"] = 4096

connections: Final[dict[socket.socket, str]] = {}
"""The connections of the open streams, and the tabs that have opened them."""


class Visitor(TypedDict):
    """The tab that has sent a request, as the other tabs show it."""

    tab: str
    name: str
    hue: int


@sse.before_request
def name_client() -> None:
    """Say which tab opens a stream."""
    g.sse_client = request.args.get("tab")


@sse.after_request
def remember_connection(response: Response) -> Response:
    """Keep a stream's connection at hand as long as it is open, so that it can be dropped."""
    tab = request.args.get("tab")
    client = _client_socket()
    if tab and client is not None:
        connection = client.dup()
        connections[connection] = tab
        response.call_on_close(partial(forget_connection, connection))
    return response


def forget_connection(connection: socket.socket) -> None:
    """Release the connection of a stream that has ended."""
    del connections[connection]
    connection.close()


app.register_blueprint(sse, url_prefix="/stream")


@app.get("/")
def index() -> str:
    """Show the page."""
    return render_template("index.html", channels=CHANNELS, longest_text=LONGEST_TEXT)


@app.get("/hello")
def hello() -> str:
    """Greet everybody, as the quickstart does."""
    sse.publish({"message": "Hello!"}, type="greeting")
    return "Message sent!"


@app.get("/clock")
def clock() -> dict[str, float]:
    """Tell the time, so that a page on another machine can measure latency."""
    return {"now": _now()}


@app.get("/windows")
def list_windows() -> dict[str, list[str]]:
    """Tell which tabs show the page."""
    return {"tabs": [*presence.members("live")]}


@app.post("/notes")
def publish_note() -> tuple[str, int]:
    """Publish a text to one of the channels."""
    body = _body()
    note = {"text": _text(body, "text", LONGEST_TEXT), "from": _visitor(body), "at": _now()}
    sse.publish(note, type="note", channel=_channel(body))
    return "", 204


@app.post("/burst")
def publish_burst() -> tuple[str, int]:
    """Publish 1,000 events, one after the other, as fast as it goes."""
    body = _body()
    channel, visitor, burst = _channel(body), _visitor(body), _text(body, "burst", LONGEST_NAME)
    for number in range(1, BURST + 1):
        event = {"burst": burst, "number": number, "of": BURST, "from": visitor, "at": _now()}
        sse.publish(event, type="burst", channel=channel)
    return "", 204


@app.post("/cursor")
def move_cursor() -> tuple[str, int]:
    """Tell all tabs where the pointer of one is, as shares of the width and the height."""
    body = _body()
    place = {"x": _share(body, "x"), "y": _share(body, "y")}
    sse.publish({**_visitor(body), **place, "at": _now()}, type="cursor", channel="live")
    return "", 204


@app.post("/leave")
def leave() -> tuple[str, int]:
    """Tell all tabs that one is closed or hidden."""
    sse.publish({"tab": _visitor(_body())["tab"]}, type="leave", channel="live")
    return "", 204


@app.post("/drop")
def drop_connections() -> tuple[str, int]:
    """Break the connections of a tab's streams off, as a failing network would."""
    if _client_socket() is None:
        abort(501, "This server does not show its connections to the application.")
    visitor = _visitor(_body())
    dropped = [one for one, tab in list(connections.items()) if tab == visitor["tab"]]
    if not dropped:
        abort(409, "Another process of the server has the connections of this page.")
    for connection in dropped:
        with suppress(OSError):  # the browser may have closed it already
            connection.shutdown(socket.SHUT_RDWR)
    return "", 204


@app.errorhandler(HTTPException)
def explain(error: HTTPException) -> tuple[dict[str, str | None], int]:
    """Tell the page why a request has failed, in words that it can show."""
    return {"error": error.description}, error.code or 500


def _client_socket() -> socket.socket | None:
    """Return the request's connection, which gunicorn and Flask's own server show."""
    environ = request.environ
    client: socket.socket | None = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    return client


def _now() -> float:
    return time.time() * 1000


def _body() -> dict[str, Any]:
    """Return the request's JSON, which must be an object."""
    body: object = request.get_json()
    if not isinstance(body, dict):
        abort(400, "A JSON object is needed.")
    # The keys of an object in JSON are strings.
    return cast("dict[str, Any]", body)


def _visitor(body: dict[str, Any]) -> Visitor:
    hue: object = body.get("hue")
    if not isinstance(hue, int) or not 0 <= hue < 360:
        abort(400, "'hue' must be a whole number from 0 to 359.")
    tab, name = (_text(body, key, LONGEST_NAME) for key in ("tab", "name"))
    return {"tab": tab, "name": name, "hue": hue}


def _channel(body: dict[str, Any]) -> str:
    channel: object = body.get("channel")
    if not isinstance(channel, str) or channel not in CHANNELS:
        abort(400, f"'channel' must be one of {', '.join(CHANNELS)}.")
    return channel


def _text(body: dict[str, Any], key: str, longest: int) -> str:
    text: object = body.get(key)
    if not isinstance(text, str) or not text.strip() or len(text) > longest:
        abort(400, f"{key!r} must be a text of 1 to {longest} characters.")
    if not text.isprintable():
        abort(400, f"{key!r} must be printable.")
    return text


def _share(body: dict[str, Any], key: str) -> float:
    share: object = body.get(key)
    if not isinstance(share, int | float) or not math.isfinite(share) or not 0 <= share <= 1:
        abort(400, f"{key!r} must be a number from 0 to 1.")
    return round(share, 4)
