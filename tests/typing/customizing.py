"""How a typed application changes the blueprint; checked by mypy and by pyright, never run."""

from typing import Any, Final, assert_type

from flask import Flask, abort, current_app, g, request
from flask.typing import ResponseReturnValue
from redis import StrictRedis

from flask_sse import Message, ServerSentEventsBlueprint, sse


class TenantsBlueprint(ServerSentEventsBlueprint):
    """A blueprint with a Redis and a default channel of its own."""

    @property
    def redis(self) -> StrictRedis:
        """The Redis that the application keeps for its tenants."""
        client: StrictRedis = current_app.extensions["tenants-redis"]
        return client

    def publish(
        self,
        data: Any,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        channel: str = "tenants",
    ) -> int:
        """Publish to the tenant's own channel unless told otherwise."""
        return super().publish(data, type, id, retry, channel)

    def publish_message(self, message: Message) -> int:
        """Publish a message that somebody else has made."""
        return self.publish(message.data, message.type, message.id, message.retry)


tenants: Final = TenantsBlueprint(
    "tenants", __name__, url_prefix="/tenants", url_defaults={"tenant": "nobody"}
)
tenants.add_url_rule("/events", view_func=tenants.stream)
assert_type(tenants.redis, StrictRedis)


@sse.before_request
def check_access() -> ResponseReturnValue | None:
    """The documented way to keep people out."""
    if request.args.get("channel") == "analytics" and not g.user.is_admin():
        abort(403)
    return None


@tenants.before_request
def know_the_tenant() -> None:
    """A handler need not return anything."""
    g.tenant = request.host.partition(".")[0]


def create_app() -> Flask:
    """Register the ready-made instance, and another one beside it."""
    app = Flask(__name__)
    app.register_blueprint(sse, url_prefix="/stream")
    app.register_blueprint(tenants)
    return app
