"""Views that stream by themselves, from the messages of a channel."""

import json

from flask import Flask, Response, request, stream_with_context

from flask_sse import sse

app = Flask(__name__)
app.config.from_prefixed_env()
app.register_blueprint(sse, url_prefix="/stream")


@app.route("/events/<channel>")
def events(channel):
    """Stream a channel named in the path."""

    @stream_with_context
    def generate():
        for message in sse.messages(channel=channel):
            yield str(message)

    return Response(generate(), mimetype="text/event-stream")


@app.route("/until-done/<channel>")
def until_done(channel):
    """Stream until an event says that all is done."""

    def generate():
        for message in sse.messages(channel):
            yield str(message)
            if message.type == "done":
                break

    return Response(stream_with_context(generate()), mimetype="text/event-stream")


@app.route("/lines")
def lines():
    """Stream JSON lines, no events."""

    @stream_with_context
    def generate():
        for message in sse.messages("lines"):
            yield json.dumps(message.to_dict()) + "\n"

    return Response(generate(), mimetype="application/jsonlines")


@app.route("/own-format")
def own_format():
    """Stream what the request and each message say."""

    def generate():
        for message in sse.messages(request.args["channel"]):
            yield f"event: {message.type}\ndata: {message.data['n'] * 2}\n\n"

    return app.response_class(stream_with_context(generate()), mimetype="text/event-stream")


@app.route("/publish/<channel>")
def publish(channel):
    """Publish a number."""
    sse.publish({"n": int(request.args["n"])}, type=request.args.get("type"), channel=channel)
    return "published"
