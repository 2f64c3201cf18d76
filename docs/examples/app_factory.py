"""An application factory with separate access control for each application."""

from flask import Flask, abort, request, session

from flask_sse import ServerSentEventsBlueprint


def create_app(redis_url: str, members_only: frozenset[str]) -> Flask:
    """Create an application with a stream at /stream."""
    app = Flask(__name__)
    app.config["REDIS_URL"] = redis_url
    app.secret_key = "change this"

    events = ServerSentEventsBlueprint("sse", __name__)
    events.add_url_rule("", endpoint="stream", view_func=events.stream)

    @events.before_request
    def check_access() -> None:
        channel = request.args.get("channel") or "sse"
        if channel in members_only and "user" not in session:
            abort(403)

    app.register_blueprint(events, url_prefix="/stream")
    return app
