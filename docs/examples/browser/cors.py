"""A stream for pages of another origin, with cookies."""

from flask import Flask, Response, abort, request, session

from flask_sse import sse

ORIGINS = {"https://app.example.org"}


@sse.before_request
def require_login() -> None:
    """Refuse clients that have not logged in."""
    if "user" not in session:
        abort(401)


@sse.after_request
def allow_origins(response: Response) -> Response:
    """Name the origin of the request: with credentials, ``*`` is not allowed."""
    response.vary.add("Origin")
    origin = request.headers.get("Origin")
    if origin in ORIGINS:
        response.access_control_allow_origin = origin
        response.access_control_allow_credentials = True
    return response


def create_app(redis_url: str) -> Flask:
    """Make the application."""
    app = Flask(__name__)
    app.config["REDIS_URL"] = redis_url
    app.config["SECRET_KEY"] = "keep this one out of the code"
    app.register_blueprint(sse, url_prefix="/stream")

    @app.get("/login")
    def log_in() -> str:
        """Stand in for a real login."""
        session["user"] = "alice"
        return "Welcome!"

    return app
