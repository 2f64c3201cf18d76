"""The streams that the server reads, each in one of its threads, and warnings of what that costs.

Call this only in the thread that reads the stream. Each warning is logged once.
"""

import logging
import sys
from collections.abc import Callable
from typing import Final

from flask_sse._streaming import threads
from flask_sse._streaming.bridges import A2WSGI, Bridge, find_bridge

_log: Final = logging.getLogger("flask_sse")


class Readers:
    """The streams of an application that the server reads."""

    def __init__(self) -> None:
        self._streams: set[object] = set()
        self._bridges: set[str] = set()
        self._warned_of_threads = False

    def enter(self, stream: object, end: Callable[[], object]) -> None:
        """Note that this thread reads *stream* until it leaves.

        :param end: Ends the stream. It is called in another thread when the client has left, if
            the server would not notice that.
        """
        self._streams.add(stream)
        bridge = find_bridge()
        if bridge is not None:
            self._watch(bridge, end)
        if not self._warned_of_threads:
            self._check_threads(bridge)

    def leave(self, stream: object) -> None:
        """Note that *stream* has ended."""
        self._streams.discard(stream)

    def _watch(self, bridge: Bridge, end: Callable[[], object]) -> None:
        if not bridge.call_when_gone(end):
            fault = "does not tell when a client has left, whose stream then occupies a thread"
        elif bridge.collects_without_limit:
            fault = "collects in memory, without a limit, what a slow client does not receive"
        else:
            return
        if bridge.name not in self._bridges:
            self._bridges.add(bridge.name)
            _log.warning("%s %s; use %s", bridge.name, fault, A2WSGI)

    def _check_threads(self, bridge: Bridge | None) -> None:
        limit = threads.concurrency()
        if limit is None or len(self._streams) < limit:
            return
        self._warned_of_threads = True
        _log.warning(
            "open event streams occupy all threads that this process has for requests (%d), so "
            "other requests wait until a stream ends; %s",
            limit,
            _remedy(bridge),
        )


def _remedy(bridge: Bridge | None) -> str:
    if bridge is not None and bridge.name == A2WSGI:
        return f"pass {A2WSGI} a larger number of workers, or use gunicorn"
    if bridge is not None and bridge.has_one_thread:
        return f"use {A2WSGI} instead of {bridge.name}, or gunicorn"
    if bridge is None and "gunicorn.workers.base" in sys.modules:
        return "start gunicorn with more threads, or with its gevent worker"
    return "give the server more threads, or use gunicorn"
