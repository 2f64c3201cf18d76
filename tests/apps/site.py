"""A site as the tests of servers need it; its settings come from the environment."""

import gc
import sys
import threading
import time
from collections import Counter

from flask import Flask, Response, request

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


@app.after_request
def note_close(response: Response) -> Response:
    """Log which stream has ended and in which thread; the query says what comes before."""
    name = request.args.get("note")

    def note() -> None:
        # At once, since several threads may do so at the same time.
        sys.stdout.write(f"closed {name} in {threading.current_thread().name}\n")
        sys.stdout.flush()

    def fail() -> None:
        raise ZeroDivisionError("of a function given to call_on_close")

    if name is not None:
        if "slow" in request.args:
            # Longer than any test waits.
            response.call_on_close(lambda: time.sleep(600))
        if "fail" in request.args:
            response.call_on_close(fail)
        response.call_on_close(note)
    return response


@app.get("/alive")
def alive() -> dict[str, int]:
    """Count what a stream must not hold, after a collection of garbage."""
    gc.collect()
    names = Counter(type(thing).__name__ for thing in gc.get_objects())
    kinds = ("Request", "Response", "EventStream", "greenlet", "Greenlet", "frame", "AppContext")
    environs = sum(type(thing) is dict and "wsgi.input" in thing for thing in gc.get_objects())
    threads = threading.active_count()
    return {"environ": environs, "thread": threads, **{kind: names[kind] for kind in kinds}}


@app.get("/burn")
def burn() -> str:
    """Keep the processor busy, as a view does that computes."""
    until = time.monotonic() + float(request.args["seconds"])
    while time.monotonic() < until:
        sum(range(1000))
    return "burnt"
