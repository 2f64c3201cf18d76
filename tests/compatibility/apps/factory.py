"""An application factory, its blueprint under a prefix of its own, and all ways to publish."""

import threading

import click
from flask import Blueprint, Flask, current_app, jsonify, render_template_string, request, url_for

from flask_sse import Message, sse

from .values import ARGUMENTS, CORRECTED, CORRECTED_ARGUMENTS, DATA, TEXTS

views = Blueprint("views", __name__)


@views.route("/data/<name>")
def publish_data(name):
    """Publish data of some kind."""
    sse.publish({**DATA, **TEXTS, **CORRECTED}[name])
    return "published"


@views.route("/arguments/<name>")
def publish_arguments(name):
    """Publish with arguments of some kind."""
    positional, named = {**ARGUMENTS, **CORRECTED_ARGUMENTS}[name]
    sse.publish(*positional, **named)
    return "published"


@views.route("/channel/<name>")
def publish_to_channel(name):
    """Publish to a channel, which may be a number."""
    channel = int(name) if name.isdigit() else name
    sse.publish({"to": name}, type="greeting", channel=channel)
    return "published"


@views.route("/result")
def result():
    """Tell what publish returns."""
    return jsonify(sse.publish("nobody listens", channel="nobody"))


@views.route("/thread")
def publish_from_thread():
    """Publish from a thread, which has an application context of its own."""
    app = current_app._get_current_object()

    def work():
        with app.app_context():
            sse.publish({"from": "thread"}, type="work")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return "published"


@views.route("/page")
def page():
    """Render a page that connects to streams."""
    return render_template_string(
        "{{ url_for('sse.stream') }} {{ url_for('sse.stream', channel='a b') }} {{ other }}",
        other=url_for("sse.stream", channel="users.1"),
    )


@views.route("/messages")
def messages():
    """Tell how messages look as text, as dictionaries, and to each other."""
    some = [
        Message("hello"),
        Message("two\nlines", type="t"),
        Message({"a": 1}, id=7, retry=10),
        Message([1, 2], type="t", id="x"),
    ]
    return jsonify(
        {
            "str": [str(message) for message in some],
            "dict": [message.to_dict() for message in some],
            "repr": [repr(message) for message in some],
            "equal": [Message(**message.to_dict()) == message for message in some],
            "unequal": Message("a") == Message("b"),
            "attributes": [(m.data, m.type, m.id, m.retry) for m in some],
        }
    )


@views.route("/redis")
def use_redis():
    """Use the connection for other things."""
    redis = sse.redis
    redis.delete("visits", "name", "queue")
    redis.incr("visits")
    redis.set("name", "Flask", ex=60)
    redis.rpush("queue", "a", "b")
    with redis.pipeline() as pipeline:
        pipeline.incr("visits")
        pipeline.get("name")
        results = pipeline.execute()
    with redis.lock("lock", timeout=5):
        pass
    return repr((sse.redis.get("visits"), redis.get("name"), redis.lrange("queue", 0, -1), results))


@views.route("/raw")
def publish_through_redis():
    """Publish past the library."""
    sse.redis.publish("sse", '{"data": {"raw": 1}, "type": "raw", "id": "1", "retry": 10}')
    return "published"


def create_app():
    """Return the application."""
    app = Flask(__name__)
    app.config.from_prefixed_env()
    app.register_blueprint(sse, url_prefix="/api/events")
    app.register_blueprint(views)

    @app.cli.command("publish")
    @click.argument("data")
    def publish(data):
        """Publish from a process of its own, as a cron job or a Celery task does."""
        sse.publish({"from": data}, type="cli")

    return app


app = create_app()


def publish_from_test_request_context():
    """Publish as people do in a shell and in tests."""
    with app.test_request_context("/?a=1"):
        assert request.args["a"] == "1"
        sse.publish({"from": "context"}, type="shell")


if __name__ == "__main__":
    publish_from_test_request_context()
