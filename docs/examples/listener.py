"""Prints every greeting: a process that listens, but serves no pages."""

from readme import app

from flask_sse import sse

with app.app_context():
    messages = sse.messages()

for message in messages:
    if message.type == "greeting":
        print(message.data["message"], flush=True)
