"""A channel for administrators."""

from flask import Flask, abort, g, request, session

from flask_sse import sse


class User:
    """A user who has logged in."""

    def __init__(self, role: str) -> None:
        self.role = role

    def is_admin(self) -> bool:
        """Whether this is an administrator."""
        return self.role == "admin"


@sse.before_request
def check_access() -> None:
    """Keep everybody else out of the statistics."""
    if request.args.get("channel") == "analytics" and not g.user.is_admin():
        abort(403)


def create_app(redis_url: str) -> Flask:
    """Make the application."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "keep this one out of the code"
    app.config["REDIS_URL"] = redis_url

    @app.before_request
    def know_the_user() -> None:
        """Find out whose request this is. The application's handlers run before the blueprint's."""
        g.user = User(session.get("role", "guest"))

    app.register_blueprint(sse, url_prefix="/stream")
    return app
