"""A Celery task that reports its progress to the page of the user who started it."""

import os

from celery import Celery, Task, shared_task
from flask import Flask

from flask_sse import sse

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost")


def create_app() -> Flask:
    """Make the application, for the web server as well as for Celery's workers."""
    app = Flask(__name__)
    app.config["REDIS_URL"] = REDIS_URL
    app.register_blueprint(sse, url_prefix="/stream")
    return app


flask_app = create_app()


class ContextTask(Task[..., object]):
    """A task that runs within the context of the Flask application."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the task."""
        with flask_app.app_context():
            return self.run(*args, **kwargs)


celery_app = Celery(__name__, broker=REDIS_URL, task_cls=ContextTask)
celery_app.set_default()  # for the threads of the web server, which start the tasks


@shared_task
def export(user: str, pages: int) -> None:
    """Do something that takes a long time."""
    for page in range(1, pages + 1):
        # ... write one page ...
        progress = {"page": page, "pages": pages}
        sse.publish(progress, type="progress", channel=f"user.{user}")
