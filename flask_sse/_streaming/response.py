"""The response of a view that streams, and what the request says for it."""

from collections.abc import Iterable
from typing import Final

from flask import Response, current_app, request

from flask_sse._streaming import servers, worker
from flask_sse._streaming.event_stream import EventStream
from flask_sse._streaming.overridden import GeneratedStream
from flask_sse._streaming.servers import ServerFacts

_HEADERS: Final = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}


def look_at_request() -> ServerFacts:
    """Return what the request reveals about its server, before a stream is made for it."""
    servers.prepare(request.environ)
    worker.look_for_server()
    return ServerFacts.of(request.environ)


def respond(body: EventStream | GeneratedStream, pieces: Iterable[bytes]) -> Response:
    """Return the response whose body is a stream.

    :param pieces: What the server gets of the body.
    """
    response = current_app.response_class(
        pieces,
        headers=_HEADERS,
        content_type="text/event-stream; charset=utf-8",
        direct_passthrough=True,
    )
    # The response's own method would call functions when the view has returned, or never.
    response.call_on_close = body.call_on_close  # type: ignore[method-assign]
    return response


def stop_client() -> Response:
    """Return the answer to a client that has got the end of its stream, and must not come back.

    A browser reconnects after a stream that has ended, and gives up after this status (WHATWG
    specification, section 9.2.3).
    """
    response = current_app.response_class(status=204, headers=_HEADERS)
    del response.headers["Content-Type"]
    return response


def last_event_id() -> str | None:
    """Return the id that the client has sent, or `None` if it has sent none."""
    query = request.args
    # Clients add their position to the URL of a page, which may already have an older one, even
    # under the same name.
    added = [*query.getlist("last_event_id"), *query.getlist("lastEventId")]
    newest_first = [request.headers.get("Last-Event-ID"), *reversed(added)]
    return next(filter(None, newest_first), None)
