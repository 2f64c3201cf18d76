"""A site as the tests of servers need it; its settings come from the environment."""

import threading

from flask import Flask, request

from flask_sse import sse

app = Flask(__name__)
app.config.from_prefixed_env()
app.register_blueprint(sse, url_prefix="/stream")
torn_down: list[str] = []


@app.teardown_request
def note_teardown(_: BaseException | None) -> None:
    """Remember which requests have been torn down."""
    torn_down.append(request.path)


@app.get("/")
def index() -> str:
    """Answer at once."""
    return "hello"


@app.get("/publish")
def publish() -> str:
    """Publish what the query says."""
    arguments = request.args
    return str(sse.publish(arguments["data"], channel=arguments.get("channel", "sse")))


@app.get("/torn-down")
def torn_down_requests() -> list[str]:
    """Tell which requests have been torn down."""
    return torn_down


@app.get("/threads")
def threads() -> list[str]:
    """Tell what threads there are."""
    return sorted(thread.name for thread in threading.enumerate())


@app.get("/listen")
def listen() -> str:
    """Listen in a thread, and log what is heard and that it has ended."""
    messages = sse.messages(request.args["channel"])

    def log_all() -> None:
        for message in messages:
            print("heard", message.data, flush=True)
        print("listened to the end", flush=True)

    threading.Thread(target=log_all, daemon=True).start()
    return "listening"
