"""The site, with the pages in `tests/clients` and something that a page may fetch again."""

import itertools
from collections import defaultdict
from typing import Final

from flask import Blueprint, Response, render_template, request, url_for

from flask_sse import history, streams
from tests.apps.site import app
from tests.support.servers import ROOT

CLIENTS: Final = ROOT / "tests" / "clients"
EXAMPLES: Final = ROOT / "docs" / "examples"

_numbers = itertools.count(1)
statuses: defaultdict[str, list[int]] = defaultdict(list)
clients = Blueprint(
    "clients",
    __name__,
    url_prefix="/clients",
    template_folder=CLIENTS,
    static_folder=CLIENTS / "node_modules",
    static_url_path="/node_modules",
)
examples = Blueprint(
    "examples",
    __name__,
    url_prefix="/examples",
    template_folder=EXAMPLES,
    static_folder=EXAMPLES,
    static_url_path="",
)


@clients.get("/<name>.html")
def page(name: str) -> str:
    """Render a page with the position of the channels that the query names."""
    channel, *others = channels = request.args.getlist("channel")
    view = request.args.get("view", "open_stream" if others else "sse.stream")
    is_plain = view == "sse.stream"
    position = history.position(channel) if is_plain else streams.position(channels)
    return render_template(
        f"{name}.html",
        channel=None if others else channel,
        position=position,
        url=url_for(view, channel=channels, last_event_id=position),
        alone="alone" in request.args,
        state="rendered",
    )


@app.get("/streams")
def open_stream() -> Response:
    """Open a stream, chosen in code, of the channels that the query names."""
    channels = request.args.getlist("channel")
    response = streams.stream(channels, client=channels[0])
    statuses[channels[0]].append(response.status_code)
    return response


@app.get("/stream-once")
def open_once() -> Response:
    """Open a stream, and refuse to open another one of the same channel."""
    channel = request.args["channel"]
    if not statuses[channel]:
        return open_stream()
    statuses[channel].append(403)
    return Response(status=403)


@app.get("/statuses")
def tell_statuses() -> list[int]:
    """Tell the statuses of the streams, chosen in code, whose first channel the query names."""
    return statuses[request.args["channel"]]


@app.get("/state")
def state() -> str:
    """Tell how often it has been fetched, as text that a page can show."""
    return f"fetched {next(_numbers)}"


app.register_blueprint(clients)
app.register_blueprint(examples)
