"""Server-sent events for Flask, through Redis.

>>> from flask import Flask
>>> from flask_sse import sse
>>> app = Flask(__name__)
>>> app.config["REDIS_URL"] = "memory://"
>>> app.register_blueprint(sse, url_prefix="/stream")
>>> with app.app_context():
...     sse.publish({"message": "Hello!"}, type="greeting")
0

(PYTEST_DONT_REWRITE: an application that has imported this may start pytest.)
"""

from flask_sse._blueprint import ServerSentEventsBlueprint, sse
from flask_sse._event.message import Message

__all__ = ["Message", "ServerSentEventsBlueprint", "sse"]

__version__ = "2.0.0.dev0"
