"""A chat with rooms. A page that loses its connection does not miss a message."""

import os
from collections import defaultdict
from itertools import count

from flask import Flask, render_template, request

from flask_sse import history, sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.config["SSE_HISTORY"] = {"room.*": 100}
app.register_blueprint(sse, url_prefix="/stream")

# These stand in for a database table and its ids.
rooms: dict[str, list[dict[str, str | int]]] = defaultdict(list)
ids = count(1)


@app.get("/rooms/<room>")
def show_room(room: str) -> str:
    """Show a room, with what has been said so far."""
    position = history.position(f"room.{room}")  # before the messages are read
    return render_template("chat.html", room=room, messages=rooms[room], position=position)


@app.post("/rooms/<room>")
def say(room: str) -> tuple[str, int]:
    """Send a message to everybody in the room, including the sender."""
    message: dict[str, str | int] = {
        "id": next(ids),
        "name": request.form["name"][:30],
        "text": request.form["text"][:500],
    }
    rooms[room].append(message)
    sse.publish(message, channel=f"room.{room}")
    return "", 204
