"""The site that logs its signals, with streams of clients that have a name."""

from flask import Response, request

from flask_sse import streams
from tests.apps.signalling import app

__all__ = ["app"]


@app.get("/own")
def own() -> Response:
    """Open a stream of the channels, for the client that the query names."""
    arguments = request.args
    return streams.stream(arguments.getlist("channel"), client=arguments.get("client"))


@app.get("/disconnect")
def disconnect() -> str:
    """Disconnect a client, or the clients of a channel."""
    arguments = request.args
    return str(streams.disconnect(client=arguments.get("client"), channel=arguments.get("channel")))
