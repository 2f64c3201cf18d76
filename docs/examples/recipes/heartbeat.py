"""Publishes a heartbeat to every channel that has clients, in a process of its own."""

import os
import time

import redis
from flask import Flask

from flask_sse import sse

CHANNELS = ["sse", "user.*"]
SECONDS = 20

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")


def beat() -> None:
    """Publish to the channels that match a pattern, and that a process is subscribed to."""
    for pattern in CHANNELS:
        for name in sse.redis.pubsub_channels(pattern):
            channel = name if isinstance(name, str) else name.decode()
            sse.publish("", type="heartbeat", channel=channel)


if __name__ == "__main__":
    with app.app_context():
        while True:
            try:
                beat()
            except redis.RedisError:
                app.logger.exception("The heartbeat was not published.")
            time.sleep(SECONDS)
