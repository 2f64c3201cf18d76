"""The site, with the pages in `tests/clients` and something that a page may fetch again."""

import itertools

from flask import Response, send_from_directory

from tests.apps.site import app
from tests.support.servers import ROOT

_numbers = itertools.count(1)


@app.get("/clients/<path:name>")
def client(name: str) -> Response:
    """Send a page, or a script that it needs."""
    return send_from_directory(ROOT / "tests" / "clients", name)


@app.get("/state")
def state() -> str:
    """Tell how often it has been fetched, as text that a page can show."""
    return f"loaded {next(_numbers)}"
