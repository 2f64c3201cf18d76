"""An RQ job that reports its progress."""

import os

from flask import Flask
from redis import Redis
from rq import Queue

from flask_sse import sse

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost")

app = Flask(__name__)
app.config["REDIS_URL"] = REDIS_URL
app.register_blueprint(sse, url_prefix="/stream")
queue = Queue(connection=Redis.from_url(REDIS_URL))


def export(user: str, pages: int) -> None:
    """Do something that takes long: this runs in an RQ worker."""
    with app.app_context():
        for page in range(1, pages + 1):
            ...  # write one page
            progress = {"page": page, "pages": pages}
            sse.publish(progress, type="progress", channel=f"user.{user}")


@app.post("/exports/<user>")
def start_export(user: str) -> tuple[str, int]:
    """Hand the work to a worker."""
    queue.enqueue(export, user, pages=3)
    return "", 202
