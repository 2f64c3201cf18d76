"""gunicorn settings for an application with event streams."""

import os

bind = "127.0.0.1:8000"
worker_class = "gevent"
# One for each core that the application may use. In a container, use the container's limit:
# cpu_count() returns the number of cores of the host.
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
# Requests that one worker handles at the same time. Open streams do not count.
worker_connections = 1_000
# How long a worker may take to finish its requests when it is told to stop. Streams end
# within about a second.
graceful_timeout = 30
