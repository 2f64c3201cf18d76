"""One stream for each user: it has the user's own channel, and one that all users get."""

import os

from flask import Flask, Response, abort, session

from flask_sse import sse, streams

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]
app.config["SSE_HISTORY"] = {"user.*": 100, "news": 100}


@app.get("/events")
def events() -> Response:
    """Open the stream of the user who has logged in."""
    user = session.get("user_id")
    if user is None:
        abort(403)
    return streams.stream([f"user.{user}", "news"])


def notify(user: int, text: str) -> None:
    """Show a notification in all pages that the user has open."""
    sse.publish({"text": text}, type="notification", channel=f"user.{user}")


@app.post("/orders/<int:user>/shipped")
def ship(user: int) -> tuple[str, int]:
    """Tell a user that an order has been shipped. Let only your staff do this."""
    notify(user, "Your order has been shipped.")
    return "", 204
