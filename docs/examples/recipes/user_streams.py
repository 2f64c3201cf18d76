"""One stream for each user: every channel is denied, except one's own."""

import os

from flask import Flask, abort, request, session

from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]


@sse.before_request
def allow_own_channel() -> None:
    """Refuse everything but the channel of the user who has logged in."""
    user = session.get("user_id")
    channel = request.args.get("channel", "sse")
    if user is None or channel != f"user.{user}":
        abort(403)


app.register_blueprint(sse, url_prefix="/stream")


def notify(user: int, text: str) -> None:
    """Show a notification in all pages that the user has open."""
    sse.publish({"text": text}, type="notification", channel=f"user.{user}")


@app.post("/orders/<int:user>/shipped")
def ship(user: int) -> tuple[str, int]:
    """Tell a user that an order has been shipped. Let only your staff do this."""
    notify(user, "Your order has been shipped.")
    return "", 204
