"""A subclass whose messages use the contexts of the request, as a site with users does."""

from flask import Flask, current_app, g, jsonify, request, session
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user

from flask_sse import Message, ServerSentEventsBlueprint

steps = []


class User(UserMixin):
    """A user, whose name is the id."""

    def __init__(self, name):
        self.id = name


class Personal(ServerSentEventsBlueprint):
    """Greets the user, and counts what the user has received."""

    def messages(self, channel="sse"):
        """Yield a greeting and then what passes."""
        yield Message(
            {
                "g": g.user,
                "current_user": current_user.id,
                "session": session["theme"],
                "app": current_app.name,
                "request": request.args["channel"],
            },
            type="welcome",
        )
        try:
            for message in super().messages(channel):
                g.received += 1
                yield Message({"to": g.user, "number": g.received}, type=message.type)
        finally:
            steps.append(f"generator of {g.user}")


personal = Personal("personal", __name__)
personal.add_url_rule("", endpoint="stream", view_func=login_required(personal.stream))


@personal.before_request
def know_user():
    """Note the user."""
    g.user = current_user.id
    g.received = 0


app = Flask(__name__)
app.config.from_prefixed_env()
app.secret_key = "of the tests"
app.register_blueprint(personal, url_prefix="/stream")
LoginManager(app).user_loader(User)


@app.teardown_request
def note_request(error):
    """Note what the request has left."""
    if "received" in g:
        steps.append(f"request of {g.user}, {g.received} received")


@app.teardown_appcontext
def note_context(error):
    """Note the same for the context of the application."""
    if "received" in g:
        steps.append(f"application of {g.user}, {g.received} received")


@app.route("/login/<name>")
def log_in(name):
    """Log a user in."""
    login_user(User(name))
    session["theme"] = f"dark, says {name}"
    return "logged in"


@app.route("/publish/<channel>")
def publish(channel):
    """Publish an event."""
    personal.publish("news", channel=channel)
    return "published"


@app.route("/steps")
def show_steps():
    """Tell what has happened."""
    return jsonify(steps)
