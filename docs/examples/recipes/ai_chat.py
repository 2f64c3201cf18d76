"""Answers of a language model as the chunks that the AI SDK's useChat expects."""

import os
from collections.abc import Iterator
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

from flask import Flask, Response, render_template, request, url_for

from flask_sse import sse, streams

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.config["SSE_HISTORY"] = {"answer.*": 10_000}
app.config["SSE_HISTORY_TTL"] = 600

# The stream of the latest answer in each chat: this stands in for a database table.
latest: dict[str, str] = {}


def generate(question: str) -> Iterator[str]:
    """Stand in for the streaming API of a language model."""
    for word in f"You asked: {question}".split(" "):
        yield f"{word} "


@app.get("/")
def index() -> str:
    """Show the chat."""
    return render_template("ai_chat.html")


@app.post("/chats/<chat>")
def ask(chat: str) -> dict[str, str]:
    """Start to generate an answer, and return the URL of its stream."""
    parts: list[dict[str, Any]] = request.get_json()["parts"]
    question = "".join(part["text"] for part in parts if part["type"] == "text")
    answer = uuid4()
    position = streams.position([f"answer.{answer}"])  # before the first chunk
    latest[chat] = url_for("events", answer=answer, last_event_id=position)
    Thread(target=write, args=[answer, question]).start()
    return {"url": latest[chat]}


@app.get("/chats/<chat>")
def resume(chat: str) -> dict[str, str | None]:
    """Return the URL of the latest answer's stream, for a page that has been loaded again."""
    return {"url": latest.get(chat)}


@app.get("/answers/<uuid:answer>")
def events(answer: UUID) -> Response:
    """Open the stream of an answer. Check here whether the user may read it."""
    return streams.stream([f"answer.{answer}"])


@app.delete("/answers/<uuid:answer>")
def stop(answer: UUID) -> tuple[str, int]:
    """Tell the thread that writes the answer to stop."""
    sse.redis.set(f"stop:{answer}", 1, ex=600)
    return "", 204


def chunks(question: str) -> Iterator[dict[str, str]]:
    """Make the chunks of a message with one part, which is text."""
    yield {"type": "start"}
    yield {"type": "text-start", "id": "text"}
    for token in generate(question):
        yield {"type": "text-delta", "id": "text", "delta": token}
    yield {"type": "text-end", "id": "text"}
    yield {"type": "finish"}


def write(answer: UUID, question: str) -> None:
    """Publish each chunk, until somebody stops it."""
    channel = f"answer.{answer}"
    with app.app_context():
        try:
            for chunk in chunks(question):
                if sse.redis.exists(f"stop:{answer}"):
                    break
                sse.publish(chunk, type="chunk", channel=channel)
        finally:
            streams.end(channel)
