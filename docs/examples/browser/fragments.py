"""Rows that appear in every open page, as HTML that the server has rendered."""

import os

from flask import Flask, render_template, request

from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.register_blueprint(sse, url_prefix="/stream")


def publish_for_htmx_2(text: str) -> None:
    """Publish with the type that the page names in ``sse-swap``."""
    sse.publish(render_template("row.html", text=text), type="row")


def publish_for_htmx_4(text: str) -> None:
    """Publish without a type: htmx 4 swaps the data of such events."""
    sse.publish(render_template("row.html", text=text), channel="htmx-4")


def publish_for_turbo(text: str) -> None:
    """Publish without a type: Turbo executes the ``<turbo-stream>`` elements in the data."""
    sse.publish(render_template("row_for_turbo.html", text=text), channel="turbo")


@app.post("/rows")
def add_row() -> tuple[str, int]:
    """Show a row in every page. Your application needs only one of the three calls."""
    text = request.form["text"]
    publish_for_htmx_2(text)
    publish_for_htmx_4(text)
    publish_for_turbo(text)
    return "", 204


@app.get("/<page>")
def show(page: str) -> str:
    """Show one of the pages."""
    return render_template(f"{page}.html")
