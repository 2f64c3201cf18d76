"""Publishes the number of visitors; to be run from cron or by hand."""

import sys

from readme import app

from flask_sse import sse


def main(visitors: int) -> None:
    """Publish within the context of the application, which knows where Redis is."""
    with app.app_context():
        sse.publish({"visitors": visitors}, type="statistics", channel="dashboard")


if __name__ == "__main__":
    main(visitors=int(sys.argv[1]))
