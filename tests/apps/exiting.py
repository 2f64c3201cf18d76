"""Ends while a client lags, and is told to end once more; says when it was told.

Run by ``python -m gevent.monkey``, with the port of a Redis and the descriptor of a connection.
"""

import os
import sys
from functools import partial
from importlib import import_module
from typing import Any

import redis
from flask import Flask

from flask_sse._hub.connection import Connection, Terms
from flask_sse._hub.hub import Hub
from flask_sse._redis.pubsub import PubSubConnection
from flask_sse._redis.server_subscription import ServerSubscription
from tests.support.waiting import wait_until

# It has no types.
gevent: Any = import_module("gevent")


def exit_again() -> None:
    """Do what gunicorn's worker does in a greenlet when it is told to quit."""
    os.write(1, b"told again\n")
    sys.exit(0)


def main() -> None:
    """Have a client lag, and return."""
    client = redis.Redis(port=int(sys.argv[1]))
    hub = Hub(partial(ServerSubscription, partial(PubSubConnection, client)), Flask(__name__).json)
    terms = Terms(b":\n", lambda: b"", 1 << 20, lambda _: None)
    connection = Connection(int(sys.argv[2]), b"", terms, chunked=True, callbacks=[])
    hub.adopt(b"x", lambda: connection)
    wait_until(lambda: connection.is_open, "the stream is open")
    client.publish("x", '{"data": "%s"}' % ("x" * 2_000_000))
    wait_until(lambda: connection.is_lagging, "the client lags")
    gevent.spawn_later(0.1, exit_again)


if __name__ == "__main__":
    main()
