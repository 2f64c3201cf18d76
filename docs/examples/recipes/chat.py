"""A chat with rooms, of which a page shows any number through one stream."""

import os
from itertools import count

from flask import Flask, Response, abort, jsonify, render_template, request

from flask_sse import sse, streams

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.config["SSE_HISTORY"] = {"room.*": 100}

# These stand in for a database table and its ids.
rooms: dict[str, list[dict[str, str | int]]] = {"coffee": [], "lobby": [], "tea": []}
ids = count(1)


@app.get("/")
def index() -> str:
    """Show the page."""
    return render_template("chat.html", rooms=[*rooms])


@app.get("/events")
def events() -> Response:
    """Open one stream for all rooms that the page shows."""
    chosen = request.args.getlist("room")
    if not chosen or not rooms.keys() >= set(chosen):
        abort(403)
    return streams.stream([f"room.{room}" for room in chosen])


@app.get("/rooms/<room>")
def show_room(room: str) -> Response:
    """Return what has been said in a room so far."""
    return jsonify(rooms.get(room, []))


@app.post("/rooms/<room>")
def say(room: str) -> tuple[str, int]:
    """Send a message to everybody in the room, including the sender."""
    if room not in rooms:
        abort(404)
    message: dict[str, str | int] = {
        "id": next(ids),
        "room": room,
        "name": request.form["name"][:30],
        "text": request.form["text"][:500],
    }
    rooms[room].append(message)
    sse.publish(message, channel=f"room.{room}")
    return "", 204
