"""Settings of gunicorn for an application with metrics."""

from typing import Any

from prometheus_client import multiprocess

bind = "127.0.0.1:8000"
workers = 2


def child_exit(server: Any, worker: Any) -> None:
    """Count the streams of a worker no more that has ended, however it has."""
    multiprocess.mark_process_dead(worker.pid)
