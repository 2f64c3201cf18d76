"""Access control by session: each user has a channel, and there is one for all."""

from flask import Flask, abort, g, redirect, request, session, url_for

from flask_sse import sse

app = Flask(__name__)
app.secret_key = "secret"
app.config.from_prefixed_env()
closed = []


@app.before_request
def load_user():
    """Remember who asks."""
    g.user = session.get("user")


@sse.before_request
def check_access():
    """Let users read their own channel and the public one."""
    channel = request.args.get("channel", "sse")
    if channel not in ("sse", f"user:{g.user}"):
        abort(403)


@sse.after_request
def add_headers(response):
    """Let pages of other origins connect."""
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["X-User"] = str(g.user)
    return response


app.register_blueprint(sse, url_prefix="/stream")


@app.route("/login/<user>")
def login(user):
    """Begin a session."""
    session["user"] = user
    return "logged in"


@app.route("/mine")
def mine():
    """Lead to the channel of the user."""
    return redirect(url_for("sse.stream", channel=f"user:{g.user}"))


@app.route("/notify/<user>")
def notify(user):
    """Publish to a user."""
    sse.publish({"for": user}, type="notification", channel=f"user:{user}")
    return "published"


@app.route("/all")
def to_all():
    """Publish to everybody."""
    sse.publish({"for": "all"})
    return "published"
