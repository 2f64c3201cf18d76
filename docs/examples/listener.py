"""Prints every greeting, in a process that serves no pages."""

from app import app  # the module of your application

from flask_sse import sse

with app.app_context():
    messages = sse.messages()

for message in messages:
    if message.type == "greeting":
        print(message.data["message"], flush=True)
