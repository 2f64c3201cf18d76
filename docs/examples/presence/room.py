"""A room that shows who is there."""

import os

from flask import Flask, Response, abort, render_template, request, session

from flask_sse import presence, streams

app = Flask(__name__)
app.config["SECRET_KEY"] = "change-me"
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.config["SSE_PRESENCE"] = ["room.*"]


@app.post("/login")
def log_in() -> str:
    """Stand in for a real login."""
    session["user"] = request.form["user"]
    return "Welcome!"


@app.get("/rooms/<int:room>")
def show_room(room: int) -> str:
    """Show the page."""
    return render_template("room.html", room=room)


@app.get("/rooms/<int:room>/events")
def events(room: int) -> Response:
    """Open the stream of a room."""
    user: str | None = session.get("user")
    if user is None:
        abort(403)
    return streams.stream([f"room.{room}"], client=user)


@app.get("/rooms/<int:room>/members")
def members(room: int) -> dict[str, str]:
    """Tell who is in a room, and since when."""
    found = presence.members(f"room.{room}")
    return {user: member.since.isoformat() for user, member in found.items()}
