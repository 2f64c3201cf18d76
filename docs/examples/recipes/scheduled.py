"""Publishes the time every second, with APScheduler."""

import os
from datetime import UTC, datetime

from apscheduler.schedulers.blocking import BlockingScheduler
from flask import Flask

from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
app.register_blueprint(sse, url_prefix="/stream")


def publish_time() -> None:
    """Publish in an application context."""
    with app.app_context():
        sse.publish(datetime.now(UTC).isoformat(), type="time")


if __name__ == "__main__":
    scheduler = BlockingScheduler()
    scheduler.add_job(publish_time, "interval", seconds=1)
    scheduler.start()
