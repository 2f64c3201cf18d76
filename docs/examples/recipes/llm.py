"""An answer of a language model that appears word by word."""

import os
from collections.abc import Iterator
from threading import Thread
from uuid import uuid4

from flask import Flask, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from flask_sse import history, sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
# Every page of an answer gets all of its tokens, for 10 minutes after the last one.
app.config["SSE_HISTORY"] = {"answer.*": 10_000}
app.config["SSE_HISTORY_TTL"] = 600
app.register_blueprint(sse, url_prefix="/stream")


def generate(question: str) -> Iterator[str]:
    """Stand in for the streaming API of a language model."""
    yield from f"You asked: {question}".split(" ")


@app.get("/")
def index() -> str:
    """Show the form."""
    return render_template("llm.html")


@app.post("/questions")
def ask() -> Response:
    """Start to generate an answer, and redirect to its page."""
    channel = f"answer.{uuid4().hex}"
    position = history.position(channel)  # before the first token
    Thread(target=answer, args=[channel, request.form["question"]]).start()
    return redirect(url_for("show_answer", channel=channel, position=position))


@app.get("/answers/<channel>")
def show_answer(channel: str) -> str:
    """Show an answer from its beginning, also after a reload and in another tab."""
    return render_template("llm.html", channel=channel, position=request.args["position"])


def answer(channel: str, question: str) -> None:
    """Publish each token as soon as the model returns it."""
    with app.app_context():
        for token in generate(question):
            sse.publish(token, type="token", channel=channel)
        sse.publish("", type="done", channel=channel)
