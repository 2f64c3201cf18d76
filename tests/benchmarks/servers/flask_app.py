"""The application of all ``flask-sse-...`` systems: the documentation's, with a busy view."""

from __future__ import annotations

import os
import time
from typing import Final

from flask import Flask

from flask_sse import sse

BUSY_SECONDS: Final = 0.02

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ["REDIS_URL"]
app.register_blueprint(sse, url_prefix="/stream")


@app.get("/busy")
def busy() -> str:
    """Compute something in Python, so that other threads have to wait for the GIL.

    The clock counts the processor time of this thread alone: a view is the same work, however many
    threads take turns.
    """
    total, until = 0, time.thread_time() + BUSY_SECONDS
    while time.thread_time() < until:
        for number in range(1000):
            total += number
    return "done"
