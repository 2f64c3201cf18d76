"""Publishes the number of visitors. Run it from cron or by hand."""

import sys

from app import app  # the module of your application

from flask_sse import sse


def main(visitors: int) -> None:
    """Publish in the context of the application, whose settings have the URL of Redis."""
    with app.app_context():
        sse.publish({"visitors": visitors}, type="statistics", channel="dashboard")


if __name__ == "__main__":
    main(visitors=int(sys.argv[1]))
