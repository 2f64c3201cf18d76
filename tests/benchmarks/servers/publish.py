"""Publishes as fast as it can for a second, and prints how many events that were."""

from __future__ import annotations

import time

from flask_app import app

from flask_sse import sse

with app.app_context():
    sse.publish("warm")
    published, until = 0, time.perf_counter() + 1.0
    while time.perf_counter() < until:
        sse.publish({"message": "Hello!"}, type="greeting")
        published += 1
print(published)
