"""An application that counts what its streams send, by overriding `messages`."""

from collections.abc import Generator

from flask import Flask

from flask_sse import Message, ServerSentEventsBlueprint


class Counting(ServerSentEventsBlueprint):
    """A blueprint that keeps a count of each stream's messages."""

    def messages(self, channel: str = "sse") -> Generator[Message, None, None]:
        """Count the messages."""
        try:
            for number, message in enumerate(super().messages(channel), 1):
                yield Message(f"counted {number}: {message.data}")
        finally:
            print("finished", channel, flush=True)


app = Flask(__name__)
app.config.from_prefixed_env()
counting = Counting("counting", __name__)
counting.add_url_rule("", endpoint="stream", view_func=counting.stream)
app.register_blueprint(counting, url_prefix="/stream")
