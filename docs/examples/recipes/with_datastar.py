"""A list of orders that Datastar keeps up to date."""

import os

from datastar_py import ServerSentEventGenerator as Datastar
from flask import Flask, Response, render_template, request

from flask_sse import sse, streams

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.config["SSE_HISTORY"] = {"orders": "latest"}

orders: list[str] = []  # stands in for your database


def publish(event: str, channel: str) -> int:
    """Publish an event that datastar-py has made."""
    fields = [line.split(": ", 1) for line in event.rstrip("\n").split("\n")]
    data = "\n".join(value for name, value in fields if name == "data")
    return sse.publish(data, type=dict(fields)["event"], channel=channel)


@app.get("/")
def index() -> str:
    """Show the page, with the orders so far."""
    return render_template("datastar.html", orders=orders)


@app.get("/events")
def events() -> Response:
    """Open the stream of the page."""
    return streams.stream(["orders"])


@app.post("/orders")
def add_order() -> tuple[str, int]:
    """Add the order that is in the page's signals, and patch the list in all pages."""
    orders.append(request.get_json()["item"])
    fragment = render_template("orders.html", orders=orders)
    publish(Datastar.patch_elements(fragment), "orders")
    return "", 204
