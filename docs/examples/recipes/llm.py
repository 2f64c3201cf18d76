"""An answer of a language model that appears word by word, and can be stopped."""

import os
from collections.abc import Iterator
from threading import Thread
from uuid import UUID, uuid4

from flask import Flask, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from flask_sse import sse, streams

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
# Every page of an answer gets all of its tokens, for 10 minutes after the last one.
app.config["SSE_HISTORY"] = {"answer.*": 10_000}
app.config["SSE_HISTORY_TTL"] = 600


def generate(question: str) -> Iterator[str]:
    """Stand in for the streaming API of a language model."""
    yield from f"You asked: {question}".split(" ")


@app.get("/")
def index() -> str:
    """Show the form."""
    return render_template("llm.html")


@app.post("/questions")
def ask() -> AnyResponse:
    """Start to generate an answer, and redirect to its page."""
    answer = uuid4()
    position = streams.position([f"answer.{answer}"])  # before the first token
    Thread(target=write, args=[answer, request.form["question"]]).start()
    return redirect(url_for("show_answer", answer=answer, position=position))


@app.get("/answers/<uuid:answer>")
def show_answer(answer: UUID) -> str:
    """Show an answer from its beginning, also after a reload and in another tab."""
    return render_template("llm.html", answer=answer, position=request.args["position"])


@app.get("/answers/<uuid:answer>/events")
def events(answer: UUID) -> Response:
    """Open the stream of an answer. Check here whether the user may read it."""
    return streams.stream([f"answer.{answer}"])


@app.post("/answers/<uuid:answer>/stop")
def stop(answer: UUID) -> tuple[str, int]:
    """Tell the thread that writes the answer, which may be in another process, to stop."""
    sse.redis.set(f"stop:{answer}", 1, ex=600)
    return "", 204


def write(answer: UUID, question: str) -> None:
    """Publish each token as soon as the model returns it, until somebody stops it."""
    channel = f"answer.{answer}"
    with app.app_context():
        try:
            for token in generate(question):
                if sse.redis.exists(f"stop:{answer}"):
                    break
                sse.publish(token, type="token", channel=channel)
        finally:
            streams.end(channel)
