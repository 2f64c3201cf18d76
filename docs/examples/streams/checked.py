"""A stream in code that a handler of the blueprint checks."""

import os

from flask import Flask, Response, abort, session

from flask_sse import sse, streams

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]


@sse.before_request
def check_access() -> None:
    """Refuse everybody who has not logged in, at /stream and at /stream/mine."""
    if "user_id" not in session:
        abort(403)


@sse.get("/mine")
def my_stream() -> Response:
    """Open one stream of the user's channels."""
    return streams.stream(["news", f"user.{session['user_id']}"])


app.register_blueprint(sse, url_prefix="/stream")
