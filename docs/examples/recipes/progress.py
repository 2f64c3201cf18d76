"""A job that reports its progress, also to pages that are opened later."""

import os
from threading import Thread
from uuid import uuid4

from flask import Flask, render_template

from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL", "redis://localhost")
# A page that connects gets the latest event of the job at once.
app.config["SSE_HISTORY"] = {"job.*": "latest"}
app.register_blueprint(sse, url_prefix="/stream")


@app.post("/jobs")
def start_job() -> dict[str, str]:
    """Start a job. In production, hand it to Celery or RQ."""
    job = uuid4().hex
    Thread(target=run_job, args=[job]).start()
    return {"id": job}


def run_job(job: str, steps: int = 20) -> None:
    """Work, and publish the progress after each step."""
    for step in range(1, steps + 1):
        ...  # do a part of the work
        with app.app_context():
            sse.publish({"done": step, "of": steps}, type="progress", channel=f"job.{job}")


@app.get("/jobs/<job>")
def show_job(job: str) -> str:
    """Show the progress bar."""
    return render_template("progress.html", job=job)
