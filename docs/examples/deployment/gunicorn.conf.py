"""Settings of gunicorn for an application with event streams."""

import multiprocessing

bind = "127.0.0.1:8000"
worker_class = "gevent"
workers = multiprocessing.cpu_count()
# Requests that one worker handles at the same time. Open streams do not count.
worker_connections = 1_000
# How long a worker may take to finish its requests when it is told to stop. Streams end
# within about a second.
graceful_timeout = 30
