"""Watches the clients of streams that a server reads, to see which have closed their side.

The thread that serves the client calls `add` and `discard`; the hub's loop uses the rest.
Nothing blocks.
"""

import contextlib
import errno
import select
import socket
import threading
from typing import Final

from flask_sse._hub.listener import Listener
from flask_sse._hub.subscriber import Subscriber
from flask_sse._system import forks, greenlets, sockets

_EVENTS: Final = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLONESHOT", 0)
_ERROR: Final = getattr(select, "EPOLLERR", 0)


class Watch:
    """The sockets of such clients, which belong to the server.

    If the system has no epoll, nothing is noticed here; the keep-alives find lost clients.
    """

    def __init__(self) -> None:
        # Held while an event is processed: a client that is discarded in that time must not
        # free its descriptor, or the next client would be mistaken for the one that left.
        # It is reentrant: while it is held, the garbage collector may close a stream, which
        # then discards its client.
        self._lock = threading.RLock()
        self._clear()
        forks.release_in_children(self)

    def _clear(self) -> None:
        self._subscribers: dict[int, Subscriber] = {}
        # waitress may have closed the socket by the time it is discarded.
        self._clients: dict[Listener, tuple[socket.socket, int]] = {}
        self._epoll = greenlets.new_epoll()

    def __len__(self) -> int:
        return len(self._clients)

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when a client has gone."""
        return None if self._epoll is None else self._epoll.fileno()

    def add(self, client: socket.socket, subscriber: Subscriber) -> None:
        """Watch a client, and end *subscriber* when it has gone.

        :raises OSError: if this user can't watch more descriptors.
        """
        with self._lock:
            descriptor = client.fileno()
            if descriptor < 0:
                # The server has noticed it first, and has closed the socket.
                subscriber.end()
                return
            # This comes first, for a client whose socket had the same number and is discarded now.
            self._subscribers[descriptor] = subscriber
            self._clients[subscriber] = client, descriptor
            if self._epoll is not None:
                self._register(self._epoll, descriptor, subscriber)

    def discard(self, client: socket.socket, subscriber: Subscriber) -> None:
        """Stop watching a client; its socket may be closed when this returns."""
        with self._lock:
            if subscriber.overflowed:
                # The thread that serves it may have been faster than the hub's loop.
                sockets.disconnect(client)
            _, descriptor = self._clients.pop(subscriber, (client, -1))
            if self._subscribers.get(descriptor) is subscriber:
                del self._subscribers[descriptor]
                if self._epoll is not None:
                    with contextlib.suppress(OSError):
                        self._epoll.unregister(descriptor)

    def end_gone(self) -> None:
        """End the subscribers whose clients have closed their side."""
        if self._epoll is None:
            return
        with self._lock:
            for descriptor, events in self._epoll.poll(0):
                subscriber = self._subscribers.get(descriptor)
                if subscriber is None:
                    continue
                client, _ = self._clients.get(subscriber, (None, -1))
                if events & _ERROR and client is not None:
                    sockets.disconnect(client)
                subscriber.end()

    def disconnect(self, listener: Listener) -> None:
        """Disconnect a client that the server may be writing to, if it is known."""
        with self._lock:
            client, _ = self._clients.get(listener, (None, -1))
            if client is not None:
                sockets.disconnect(client)

    def release_in_child(self) -> None:
        """Forget the clients in a forked child, which must not change what the parent watches."""
        # Only closed: to remove a client would remove it for the parent, too.
        if self._epoll is not None:
            self._epoll.close()
        self._lock = threading.RLock()
        self._clear()
        forks.release_in_children(self)

    def disconnect_all(self) -> None:
        """Disconnect the remaining clients, which would delay the server's shutdown."""
        with self._lock:
            for client, _ in [*self._clients.values()]:
                sockets.disconnect(client)

    def _register(self, epoll: "select.epoll", descriptor: int, subscriber: Subscriber) -> None:
        try:
            epoll.register(descriptor, _EVENTS)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            # The server has closed the socket since we asked for its number.
            subscriber.end()
