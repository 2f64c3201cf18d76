"""Waits for descriptors: one wait for everything that a hub's owner does.

Only the owner uses it. `poll` blocks the owner's thread, or its greenlet if gevent has patched.
"""

import contextlib
import selectors
import sys
from collections.abc import Callable
from typing import Any, Final

from flask_sse import _gevent, _syscalls

READ: Final = 1
"""The event of a descriptor that can be read; epoll and poll agree on it (poll(2), POLLIN)."""


class Poller:
    """Does the work of :class:`select.epoll`, also under gevent and on systems without epoll.

    gevent's own selector would need two turns of its loop for each event. Between the turns,
    all views that are ready run: with busy views, that took 0.3 s at the median.
    """

    def __init__(self) -> None:
        self._epoll = _gevent.new_epoll()
        self._selector = selectors.DefaultSelector() if self._epoll is None else None
        self._wait: Callable[[float], None] | None = None
        self._has_waited = False

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
            _syscalls.forget(self._epoll.fileno(), descriptor)
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
        return self._epoll.poll(timeout)

    def close(self) -> None:
        """Close the descriptor."""
        for closeable in (self._epoll, self._selector):
            if closeable is not None:
                closeable.close()


def _gevents_wait(descriptor: int) -> Callable[[float], None] | None:
    """Return a function that waits for a descriptor in a greenlet, if gevent has patched."""
    if not _gevent.is_patched():
        return None
    gevent: Any = sys.modules["gevent"]
    loop = gevent.get_hub().loop
    # In each turn of the loop, the owner comes first.
    watcher = loop.io(descriptor, READ, priority=loop.MAXPRI)

    def wait(timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            gevent.socket.wait(watcher, timeout=timeout, timeout_exc=TimeoutError())

    return wait
