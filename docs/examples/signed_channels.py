"""Every user has a channel, and needs its signed URL to listen to it."""

from flask import Flask, abort, current_app, request, session, url_for
from flask.typing import ResponseReturnValue
from itsdangerous import BadData, URLSafeTimedSerializer

from flask_sse import sse

MAX_AGE = 24 * 60 * 60  # seconds for which a page may stay open


def signer() -> URLSafeTimedSerializer:
    """Sign with the application's key; the salt makes these tokens useless for anything else."""
    secret = current_app.secret_key
    assert secret is not None
    return URLSafeTimedSerializer(secret, salt="event-stream")


def stream_url(channel: str) -> str:
    """Return the URL of the stream for a page that may listen to *channel*."""
    return url_for("sse.stream", channel=channel, token=signer().dumps(channel))


@sse.before_request
def check_token() -> None:
    """Refuse a request if its token was not made for this channel."""
    channel = request.args.get("channel", "sse")
    try:
        allowed = signer().loads(request.args.get("token", ""), max_age=MAX_AGE)
    except BadData:
        allowed = None
    if allowed != channel:
        abort(403)


def create_app(redis_url: str) -> Flask:
    """Make the application."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "keep this one out of the code"
    app.config["REDIS_URL"] = redis_url
    app.register_blueprint(sse, url_prefix="/stream")

    @app.route("/my-stream")
    def my_stream() -> ResponseReturnValue:
        """Give the page of a logged-in user its URL for ``new EventSource()``."""
        if "user" not in session:
            abort(401)
        return {"url": stream_url(f"user.{session['user']}")}

    return app
