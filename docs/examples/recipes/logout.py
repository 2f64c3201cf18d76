"""Streams that end when their user logs out, with Flask-Login."""

import os

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from werkzeug.wrappers import Response as AnyResponse

from flask_sse import streams

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]
app.config["SSE_HISTORY"] = {"user.*": 100, "news": 100}
logins = LoginManager(app)


class User(UserMixin):
    """A user, which stands in for a row of your database."""

    def __init__(self, name: str) -> None:
        self.id = name


@logins.user_loader
def load_user(name: str) -> User | None:
    """Return the user with a name."""
    return User(name)


@app.get("/events")
def events() -> Response:
    """Open the stream of the user who has logged in."""
    if not current_user.is_authenticated:
        abort(403)
    user = current_user.get_id()
    return streams.stream([f"user.{user}", "news"], client=user)


@app.post("/login")
def log_in() -> AnyResponse:
    """Log a user in. Check a password here."""
    login_user(User(request.form["name"]))
    return redirect(url_for("index"))


@app.post("/logout")
def log_out() -> AnyResponse:
    """Log the user out, and end the user's streams in all tabs."""
    user = current_user.get_id()
    logout_user()
    if user is not None:
        streams.disconnect(client=user)
    return redirect(url_for("index"))


@app.get("/")
def index() -> str:
    """Show the page, which knows whether the user has logged in."""
    return render_template("logout.html")
