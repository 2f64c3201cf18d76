"""An answer of a language model that appears word by word."""

import os
from collections.abc import Iterator
from threading import Thread
from uuid import uuid4

from flask import Flask, render_template, request

from flask_sse import history, sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
# A page that loses its connection gets the tokens that it has missed.
app.config["SSE_HISTORY"] = {"answer.*": 10_000}
app.config["SSE_HISTORY_TTL"] = 600
app.register_blueprint(sse, url_prefix="/stream")


def generate(question: str) -> Iterator[str]:
    """Stand in for the streaming API of a language model."""
    yield from f"You asked: {question}".split(" ")


@app.get("/")
def index() -> str:
    """Show the page."""
    return render_template("llm.html")


@app.post("/questions")
def ask() -> dict[str, str]:
    """Start to generate an answer, and say where it appears."""
    channel = f"answer.{uuid4().hex}"
    position = history.position(channel)  # before the first token
    Thread(target=answer, args=[channel, request.form["question"]]).start()
    return {"channel": channel, "position": position}


def answer(channel: str, question: str) -> None:
    """Publish each token as soon as the model returns it."""
    with app.app_context():
        for token in generate(question):
            sse.publish(token, type="token", channel=channel)
        sse.publish("", type="done", channel=channel)
