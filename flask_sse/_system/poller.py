"""Waits for descriptors: one wait for everything that a hub's loop does.

Only the loop uses it. `poll` blocks the loop's thread, or its greenlet if gevent has patched.
"""

import contextlib
import os
import selectors
import socket
import sys
from collections.abc import Callable
from io import FileIO, RawIOBase
from typing import Any, Final

from flask_sse._system import forks, greenlets, syscalls

READ: Final = 1
"""The event of a descriptor that can be read; epoll and poll agree on it (poll(2), POLLIN)."""


class Poller:
    """Does the work of :class:`select.epoll`, also under gevent and on systems without epoll.

    gevent's own selector would need two turns of its loop for each event. Between the turns,
    all views that are ready run: with busy views, that took 0.3 s at the median.
    """

    def __init__(self) -> None:
        self._epoll = greenlets.new_epoll()
        self._selector = selectors.DefaultSelector() if self._epoll is None else None
        self._wait: Callable[[float], None] | None = None
        self._has_waited = False
        self._is_in_child = False

    def register(self, descriptor: int, events: int) -> None:
        """Watch a descriptor; without epoll, only for :data:`READ`.

        :raises OSError: if this user can't watch more descriptors.
        """
        if self._epoll is not None:
            self._epoll.register(descriptor, events)
        elif self._selector is not None:
            self._selector.register(descriptor, selectors.EVENT_READ)

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor, if it is watched."""
        if self._epoll is not None:
            syscalls.forget(self._epoll.fileno(), descriptor)
        elif self._selector is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(descriptor)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait at most *timeout* seconds; return the descriptors with their events."""
        if self._epoll is None:
            assert self._selector is not None
            return [(key.fd, READ) for key, _ in self._selector.select(timeout)]
        if not self._has_waited:
            # Not earlier, because it belongs to the loop of the thread that waits.
            self._has_waited = True
            self._wait = _gevents_wait(self._epoll.fileno())
        if self._wait is not None:
            self._wait(timeout)
            timeout = 0
            if self._is_in_child:
                # Here, an event would be lost to the parent.
                return []
        return self._epoll.poll(timeout)

    def release_in_child(self) -> None:
        """Don't use the descriptor in a forked child, where the parent's greenlets continue."""
        self._is_in_child = True
        # If gevent's loop watches a closed descriptor after a fork, it aborts the process.
        if self._wait is None:
            self.close()

    def close(self) -> None:
        """Close the descriptor."""
        for closeable in (self._epoll, self._selector):
            if closeable is not None:
                closeable.close()


def _gevents_wait(descriptor: int) -> Callable[[float], None] | None:
    """Return a function that waits for a descriptor in a greenlet, if gevent has patched."""
    if not greenlets.is_patched():
        return None
    gevent: Any = sys.modules["gevent"]
    hub = gevent.get_hub()
    # In each turn of gevent's loop, the hub comes first.
    watcher = hub.loop.io(descriptor, READ, priority=hub.loop.MAXPRI)

    def wait(timeout: float) -> None:
        # `gevent.socket.wait` does the same with more objects, and takes twice the time.
        resume = gevent.getcurrent().switch
        timer = hub.loop.timer(timeout)
        try:
            watcher.start(resume)
            timer.start(resume)
            hub.switch()
        finally:
            # Also if the greenlet has been killed: they must not resume a later wait.
            watcher.stop()
            timer.stop()
            timer.close()

    return wait


class Waker:
    """Ends the wait of a hub's loop, from any thread."""

    def __init__(self) -> None:
        self._receiver, self._sender = _new_pipe()
        forks.release_in_children(self)
        self.is_set = False

    def fileno(self) -> int:
        """Return the descriptor that becomes readable after `set`."""
        return self._receiver.fileno()

    def set(self) -> None:
        """End the loop's wait, or its next one."""
        if not self.is_set:
            self.is_set = True
            # The loop may have ended and closed it.
            with contextlib.suppress(OSError, ValueError):
                self._sender.write(b"\0")

    def clear(self) -> None:
        """Reset, so that the loop can wait again."""
        self._receiver.read(64)
        self.is_set = False

    def release_in_child(self) -> None:
        """Close the descriptors in a forked child."""
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        # In this order, nobody can write to a pipe without a reader.
        self._sender.close()
        self._receiver.close()


def _new_pipe() -> tuple[RawIOBase, RawIOBase]:
    """Return both ends of a pipe that never blocks; in tests, sockets may be forbidden."""
    if sys.platform == "win32":  # pragma: no cover - coverage is measured elsewhere
        # There, only sockets can be waited for.
        receiver, sender = socket.socketpair()
        with receiver, sender:
            receiver.setblocking(False)
            sender.setblocking(False)
            return receiver.makefile("rb", buffering=0), sender.makefile("wb", buffering=0)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return FileIO(reading, "r"), FileIO(writing, "w")
