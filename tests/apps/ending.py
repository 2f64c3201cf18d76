"""The site that logs all signals, with streams of several channels, and a view that ends one."""

from flask import Response, request

from flask_sse import streams
from tests.apps.signalling import app

__all__ = ["app"]


@app.get("/events")
def events() -> Response:
    """Stream the channels that the query names."""
    return streams.stream(request.args.getlist("name"))


@app.get("/end")
def end() -> str:
    """End a channel."""
    return str(streams.end(request.args["channel"]))
