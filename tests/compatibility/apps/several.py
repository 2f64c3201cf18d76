"""Several blueprints in one application: the ready-made one twice, and two others."""

from flask import Flask, jsonify
from flask.json.provider import DefaultJSONProvider

from flask_sse import ServerSentEventsBlueprint, sse


class Compact(DefaultJSONProvider):
    """Writes sets as lists, and no spaces."""

    def dumps(self, obj, **kwargs):
        """Write JSON without spaces."""
        return super().dumps(obj, **{"separators": (",", ":"), **kwargs})

    @staticmethod
    def default(obj):
        """Write sets as lists."""
        if isinstance(obj, (set, frozenset)):
            return sorted(obj)
        return DefaultJSONProvider.default(obj)


app = Flask(__name__)
app.json = Compact(app)
app.config.from_prefixed_env()
news = ServerSentEventsBlueprint("news", __name__, url_prefix="/news")
news.add_url_rule("", endpoint="stream", view_func=news.stream)
chat = ServerSentEventsBlueprint("chat", __name__)
chat.add_url_rule("/live", view_func=chat.stream)
app.register_blueprint(sse, url_prefix="/stream")
app.register_blueprint(sse, url_prefix="/again", name="again")
app.register_blueprint(news)
app.register_blueprint(chat, url_prefix="/chat")


@app.route("/publish")
def publish():
    """Publish with each of them, on one channel."""
    for number, blueprint in enumerate([sse, news, chat]):
        blueprint.publish({"n": number, "tags": {"b", "a"}}, type=blueprint.name)
    return "published"


@app.route("/rules")
def rules():
    """Tell which addresses there are."""
    return jsonify(sorted((rule.endpoint, rule.rule) for rule in app.url_map.iter_rules()))
