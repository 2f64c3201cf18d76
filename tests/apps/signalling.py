"""The site, with receivers that log all signals; ``FLASK_SLOW`` has them take a minute."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, g, request

from flask_sse import signals, sse
from tests.apps.site import app

__all__ = ["app"]


@app.before_request
def note_client() -> None:
    """Say who the client is, as the query says."""
    g.sse_client = request.args.get("user")


def logs(name: str) -> Callable[..., None]:
    """Return a receiver that logs."""

    def receive(sender: Flask, **values: Any) -> None:
        assert sender is app
        line = json.dumps([name, os.getpid(), values], default=repr)
        # At once, since other processes and threads may do so at the same time.
        sys.stdout.write(f"signal {line}\n")
        sys.stdout.flush()
        if app.config.get("SLOW"):
            # Longer than any test waits.
            time.sleep(600)

    return receive


for _name in signals.__all__:
    getattr(signals, _name).connect(logs(_name), app, weak=False)


@app.get("/publish-many")
def publish_many() -> str:
    """Publish as many messages as the query says, of a size."""
    arguments = request.args
    for number in range(int(arguments["number"])):
        sse.publish(f"{number} {'x' * int(arguments['size'])}", channel=arguments["channel"])
    return "published"
