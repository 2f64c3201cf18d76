"""A page with a list of notifications that fetches the current state when it connects."""

import os

from flask import Flask, render_template, request

from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.register_blueprint(sse, url_prefix="/stream")

notifications: list[dict[str, str | int]] = []  # stands in for a database table


@app.get("/")
def index() -> str:
    """Show the page."""
    return render_template("list.html")


@app.get("/notifications")
def list_notifications() -> list[dict[str, str | int]]:
    """Return the current state."""
    return notifications


@app.post("/notifications")
def add_notification() -> tuple[str, int]:
    """Change the state, then tell the pages about it."""
    notification: dict[str, str | int] = {
        "id": len(notifications) + 1,
        "text": request.form["text"],
    }
    notifications.append(notification)
    sse.publish(notification, type="notification")
    return "", 204
