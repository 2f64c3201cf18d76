"""Two applications in one process, and two blueprints in one of them."""

import redis
from flask import Flask, current_app

from flask_sse import ServerSentEventsBlueprint, sse


class AuditBlueprint(ServerSentEventsBlueprint):
    """Events that go through a Redis server of their own."""

    @property
    def redis(self) -> redis.StrictRedis:
        """The client that the application was given for this server."""
        client: redis.StrictRedis = current_app.extensions["audit-redis"]
        return client


audit = AuditBlueprint("audit", __name__)
audit.add_url_rule("", endpoint="stream", view_func=audit.stream)


def create_shop(redis_url: str, audit_redis: redis.StrictRedis) -> Flask:
    """Make an application with two streams, /stream and /audit."""
    app = Flask("shop")
    app.config["REDIS_URL"] = redis_url
    app.extensions["audit-redis"] = audit_redis
    app.register_blueprint(sse, url_prefix="/stream")
    app.register_blueprint(audit, url_prefix="/audit")
    return app


def create_blog(redis_url: str) -> Flask:
    """Make another application. It shares channels with the first only if both use one Redis."""
    app = Flask("blog")
    app.config["REDIS_URL"] = redis_url
    app.register_blueprint(sse, url_prefix="/news")
    return app
