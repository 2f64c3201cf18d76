"""Subclasses of the blueprint, which know who listens and change what is sent."""

from flask import Flask, Response, jsonify, request, stream_with_context

from flask_sse import Message, ServerSentEventsBlueprint


class Counting(ServerSentEventsBlueprint):
    """Counts in Redis who listens."""

    def messages(self, channel="sse"):
        """Count while the generator runs."""
        redis = self.redis
        redis.hincrby("online", channel, 1)
        try:
            yield from super().messages(channel=channel)
        finally:
            redis.hincrby("online", channel, -1)


class Changing(ServerSentEventsBlueprint):
    """Greets each client, leaves some events out and changes others."""

    def messages(self, channel="sse"):
        """Yield a greeting and then what passes."""
        yield Message({"channel": channel}, type="welcome")
        for message in super().messages(channel):
            if message.type == "secret":
                continue
            if message.type == "shout":
                message.data = message.data.upper()
            yield message


class Numbering(ServerSentEventsBlueprint):
    """Yields objects of its own that know how they look."""

    class Numbered:
        """A message with a number."""

        def __init__(self, number, message):
            self.number = number
            self.message = message

        def __str__(self):
            return f"id:{self.number}\n{self.message}"

    def messages(self, channel="sse"):
        """Number the messages."""
        for number, message in enumerate(super().messages(channel=channel), 1):
            yield self.Numbered(number, message)


class Checking(ServerSentEventsBlueprint):
    """Changes the view and the publishing."""

    def stream(self):
        """Add a header."""
        response = super().stream()
        response.headers["X-Stream"] = "checked"
        return response

    def publish(self, data, type=None, id=None, retry=None, channel="sse"):
        """Wrap the data."""
        return super().publish({"wrapped": data}, type=type, id=id, retry=retry, channel=channel)


class Replaying(ServerSentEventsBlueprint):
    """Sends again what a client has missed, by its Last-Event-ID."""

    def stream(self):
        """Stream what was missed and then what comes."""

        @stream_with_context
        def generate():
            last = int(request.headers.get("Last-Event-ID", 0))
            for number in range(last + 1, 4):
                yield str(Message(f"missed {number}", id=number))
            for message in self.messages("replaying"):
                yield str(message)

        return Response(generate(), mimetype="text/event-stream")


app = Flask(__name__)
app.config.from_prefixed_env()

blueprints = {
    "counting": Counting("counting", __name__),
    "changing": Changing("changing", __name__),
    "numbering": Numbering("numbering", __name__),
    "checking": Checking("checking", __name__),
    "replaying": Replaying("replaying", __name__),
}
for name, blueprint in blueprints.items():
    blueprint.add_url_rule(rule="", endpoint="stream", view_func=blueprint.stream)
    app.register_blueprint(blueprint, url_prefix=f"/{name}")


@app.route("/publish/<name>")
def publish(name):
    """Publish what the query says."""
    blueprints[name].publish(
        request.args["data"], type=request.args.get("type"), channel=request.args["channel"]
    )
    return "published"


@app.route("/online/<channel>")
def online(channel):
    """Tell how many listen."""
    return jsonify(int(blueprints["counting"].redis.hget("online", channel) or 0))
