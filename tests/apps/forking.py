"""The site with views that fork: a child may live on, or end in several ways."""

import gc
import multiprocessing
import os
import signal
import sys
import time

from flask import current_app, request

from flask_sse import sse
from tests.apps.site import app

__all__ = ["app"]


def _live_on() -> None:
    # Not `sleep`, which under gevent would let the parent's greenlets run.
    signal.pause()


def _exit() -> None:
    _use_library()
    sys.exit(0)


def _fail() -> None:
    _use_library()
    raise ZeroDivisionError("of a child")


def _use_library() -> None:
    """Use what the parent uses, and free what the child has of it."""
    with app.app_context():
        sse.publish("from a child", channel="of-children")
        current_app.extensions.clear()
    gc.collect()
    # Under gevent, the parent's greenlets may run here.
    time.sleep(0.3)


_ACTS = {"live": _live_on, "return": _use_library, "exit": _exit, "fail": _fail}


@app.get("/fork")
def fork() -> str:
    """Fork a child that acts as the query says; return its process id."""
    act = _ACTS[request.args["act"]]
    if request.args["with"] == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=act)
        process.start()
        assert process.pid is not None
        return str(process.pid)
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            if request.args["with"] == "_exit":
                os._exit(0)
    return str(pid)
