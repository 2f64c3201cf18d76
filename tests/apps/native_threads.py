"""Publishes from greenlets and from gevent's native threads at a time; says what came of it.

Run by ``python -m gevent.monkey``, with the address of a Redis and the number of events that
each of the two publishes.
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


def publish(who: str, number: int) -> str:
    """Publish one event and use the application's client; return the error, if there is one."""
    with app.app_context():
        try:
            assert sse.publish(f"{who} {number}") == 1
            assert sse.redis.ping()
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            return repr(error)
    return ""


def publish_from_greenlets(most: int) -> list[str]:
    """Publish on and on, in greenlets that take turns."""
    greenlets = [gevent.spawn(publish, "greenlet", number) for number in range(most)]
    gevent.joinall(greenlets)
    return [greenlet.value for greenlet in greenlets]


def publish_from_native_threads(most: int) -> list[str]:
    """Publish from several native threads at a time."""
    pool = gevent.get_hub().threadpool
    results = [pool.spawn(publish, "thread", number) for number in range(most)]
    return [result.get() for result in results]


def main() -> None:
    """Publish in the one, in both at a time, and in the other."""
    app.config["REDIS_URL"] = sys.argv[1]
    most = int(sys.argv[2])
    errors = publish_from_greenlets(most)
    both = [
        gevent.spawn(publish_from_greenlets, most),
        gevent.spawn(publish_from_native_threads, most),
    ]
    gevent.joinall(both)
    for each in both:
        errors += each.value
    errors += [gevent.get_hub().threadpool.apply(publish, ("thread", most))]
    print(json.dumps([error for error in errors if error]), flush=True)
    # gevent 24.10 complains while the interpreter ends.
    os._exit(0)


if __name__ == "__main__":
    main()
