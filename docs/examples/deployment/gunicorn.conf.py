"""Settings of gunicorn for an application with event streams."""

import multiprocessing

bind = "127.0.0.1:8000"
worker_class = "gevent"
workers = multiprocessing.cpu_count()
# Streams and other requests that one worker holds open at the same time.
worker_connections = 10_000
# What a worker may take to finish its requests when it is told to stop. Streams end by
# themselves within about three seconds.
graceful_timeout = 30
