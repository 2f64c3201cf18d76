"""gunicorn settings for an application with metrics."""

from typing import Any

from prometheus_client import multiprocess

bind = "127.0.0.1:8000"
workers = 2


def child_exit(server: Any, worker: Any) -> None:
    """Stop counting the streams of a worker that has exited, for whatever reason."""
    multiprocess.mark_process_dead(worker.pid)
