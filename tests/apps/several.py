"""The site, with a view that opens a stream of the channels in its query, whoever asks."""

from flask import Response, request

from flask_sse import streams
from tests.apps.site import app


@app.get("/streams")
def several() -> Response:
    """Open a stream of several channels."""
    arguments = request.args
    return streams.stream(arguments.getlist("channel"), client=arguments.get("client"))


@app.get("/position")
def position() -> str:
    """Tell where these channels are."""
    return streams.position(request.args.getlist("channel"))
