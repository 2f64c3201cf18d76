"""Listens in a native thread of gevent's first, and then in greenlets; says what was heard.

Run by ``python -m gevent.monkey``, with the address of a Redis.
"""

import json
import os
import sys
from importlib import import_module
from typing import Any

from flask import Flask

from flask_sse import sse

# It has no types.
gevent: Any = import_module("gevent")
app = Flask(__name__)


def listen(channel: str) -> object:
    """Wait for one message."""
    with app.app_context():
        messages = sse.messages(channel)
        try:
            return next(messages).data
        finally:
            messages.close()


def publish(channel: str) -> None:
    """Publish until somebody has listened."""
    with app.app_context():
        while not sse.publish(channel, channel=channel):
            gevent.sleep(0.01)


def heard(listener: Any, channel: str) -> object:
    """Publish, and return what the listener has heard."""
    publish(channel)
    return listener.get(timeout=20)


def main() -> None:
    """Listen in the one and in the other, in turn."""
    app.config["REDIS_URL"] = sys.argv[1]
    # gevent imports its resolver when a name is first looked up. If two native threads do so at
    # once, 24.10 leaves one of them waiting for the other's import forever.
    assert gevent.config.resolver
    threadpool = gevent.get_hub().threadpool
    results = [heard(threadpool.spawn(listen, "native"), "native")]
    # That thread's task has ended, and the hub goes on for everybody else.
    for name in ("greenlet", "another"):
        results.append(heard(gevent.spawn(listen, name), name))
    results.append(heard(threadpool.spawn(listen, "native again"), "native again"))
    print(json.dumps(results), flush=True)
    # gevent 24.10 complains while the interpreter ends.
    os._exit(0)


if __name__ == "__main__":
    main()
