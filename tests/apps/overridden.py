"""An application that counts what its streams send, by overriding `messages`."""

from collections.abc import Generator

from flask import Flask, g, request

from flask_sse import Message, ServerSentEventsBlueprint


class Counting(ServerSentEventsBlueprint):
    """A blueprint that keeps a count of each stream's messages."""

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Count the messages."""
        if channel == "fails":
            raise ZeroDivisionError
        try:
            for message in super().messages(channel):
                g.number += 1
                yield Message(f"counted {g.number}: {message.data}")
        finally:
            print("overridden: finished", channel, flush=True)


app = Flask(__name__)
app.config.from_prefixed_env()
counting = Counting("counting", __name__)
counting.add_url_rule("", endpoint="stream", view_func=counting.stream)


@counting.before_request
def start_count() -> None:
    """Note the channel, and start its count."""
    g.channel = request.args["channel"]
    g.number = 0


@app.teardown_request
def note_request(_: BaseException | None) -> None:
    """Log that the request of a stream has been torn down."""
    if "channel" in g:
        print("overridden: request torn down,", g.channel, flush=True)


@app.teardown_appcontext
def note_application(_: BaseException | None) -> None:
    """Log the same about the context of the application."""
    if "channel" in g:
        print("overridden: application torn down,", g.channel, flush=True)


app.register_blueprint(counting, url_prefix="/stream")
