"""The site, with a view that opens a stream of the channels in its query, whoever asks."""

from flask import Response, request

from flask_sse import streams
from tests.apps.site import app
from tests.support import longest_id


@app.get("/streams")
def several() -> Response:
    """Open a stream of several channels."""
    arguments = request.args
    return streams.stream(arguments.getlist("channel"), client=arguments.get("client"))


@app.get(longest_id.PATH)
def most() -> Response:
    """Open a stream of as many channels with history as possible."""
    return streams.stream(longest_id.CHANNELS)


@app.get("/position")
def position() -> str:
    """Tell where the channels in the query are, or as many as possible."""
    return streams.position(request.args.getlist("channel") or longest_id.CHANNELS)
