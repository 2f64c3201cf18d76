"""Closes, in a forked child, the descriptors that only the parent may use.

A child inherits every descriptor. If it lives on when its parent has been killed, the browsers'
connections stay open, and Redis keeps the subscriptions. So each child closes its copies, and
sends nothing on them. Objects are registered from any thread; in the child, there is only one.
"""

import _socket
import contextlib
import os
import socket
from typing import Final, Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """An object that a child must not use as its parent does."""

    def release_in_child(self) -> None:
        """Close the descriptors, and do nothing else that the parent would notice."""


_objects: Final[WeakSet[Inherited]] = WeakSet()
_sockets: Final[WeakSet[socket.socket]] = WeakSet()


def release_in_children(inherited: Inherited) -> None:
    """Make each child that is forked from now on call the object's `release_in_child`."""
    _objects.add(inherited)


def close_in_children(*sockets: socket.socket) -> None:
    """Make each child that is forked from now on close its copies of these sockets.

    No greenlet may be waiting for one at the time of the fork: gevent's loop aborts a process in
    which it finds that a descriptor has been closed.
    """
    _sockets.update(sockets)


def close_copy(descriptor: int) -> None:
    """Close a child's copy of a descriptor, if there is one."""
    # gevent replaces `os.close`, and would close it when its loop runs.
    with contextlib.suppress(OSError):
        _socket.close(descriptor)


def _release_all() -> None:
    objects, sockets = [*_objects], [*_sockets]
    _objects.clear()
    _sockets.clear()
    for inherited in objects:
        # Some systems don't let a child inherit the descriptor of a selector.
        with contextlib.suppress(OSError):
            inherited.release_in_child()
    for sock in sockets:
        # gevent's own `close` would use the loop, and the garbage collector would close a
        # descriptor again whose number is already another file's.
        inner: object = getattr(sock, "_sock", sock)
        if isinstance(inner, _socket.socket):
            close_copy(_socket.socket.detach(inner))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_all)
