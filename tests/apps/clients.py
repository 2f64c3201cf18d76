"""The site, with the pages in `tests/clients` and something that a page may fetch again."""

import itertools
from typing import Final

from flask import Blueprint, render_template, request

from flask_sse import history
from tests.apps.site import app
from tests.support.servers import ROOT

CLIENTS: Final = ROOT / "tests" / "clients"
EXAMPLES: Final = ROOT / "docs" / "examples"

_numbers = itertools.count(1)
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
    """Render a page with the position of the channel that the query names."""
    channel = request.args["channel"]
    position = history.position(channel)
    return render_template(f"{name}.html", channel=channel, position=position, state="rendered")


@app.get("/state")
def state() -> str:
    """Tell how often it has been fetched, as text that a page can show."""
    return f"fetched {next(_numbers)}"


app.register_blueprint(clients)
app.register_blueprint(examples)
