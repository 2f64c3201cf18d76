"""A stream with the channels that a user may see, and a page that is rendered first."""

import os
from collections import defaultdict

from flask import Flask, Response, abort, jsonify, render_template, session

from flask_sse import sse, streams

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]
app.config["SSE_HISTORY"] = {"news": 100, "user.*": 100}

items: defaultdict[str, list[str]] = defaultdict(list)  # stands for your database


def channels() -> list[str]:
    """Return the channels of the user who has logged in."""
    user = session.get("user_id")
    if user is None:
        abort(403)
    return ["news", f"user.{user}"]


@app.get("/events")
def events() -> Response:
    """Open one stream for all channels of the user."""
    return streams.stream(channels())


@app.get("/")
def index() -> str:
    """Render the page with what there is, and with the positions after which to continue."""
    position = streams.position(channels())  # before the items are read
    known = {channel: items[channel] for channel in channels()}
    return render_template("several.html", position=position, items=known)


@app.get("/items/<channel>")
def show(channel: str) -> Response:
    """Return the items of one channel."""
    if channel not in channels():
        abort(403)
    return jsonify(items[channel])


def add(channel: str, text: str) -> None:
    """Store an item, and publish it."""
    items[channel].append(text)
    sse.publish({"channel": channel, "text": text}, type="item", channel=channel)
