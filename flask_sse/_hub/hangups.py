"""Watches the clients of streams that a server reads, to see which have closed their side.

The thread that serves the client calls `add` and `discard`; the hub's owner uses the rest.
Nothing blocks.
"""

import contextlib
import select
import socket
import threading
from typing import Final

from flask_sse import _gevent, _sockets
from flask_sse._subscriber import Subscriber

_EVENTS: Final = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLONESHOT", 0)
_ERROR: Final = getattr(select, "EPOLLERR", 0)


class Watch:
    """The sockets of such clients, which belong to the server.

    If the system has no epoll, nothing is noticed here; the keep-alives find lost clients.
    """

    def __init__(self) -> None:
        # Held while an event is processed: a client that is discarded in that time must not
        # free its descriptor, or the next client would be mistaken for the one that left.
        self._lock = threading.Lock()
        self._subscribers: dict[int, Subscriber] = {}
        # waitress may have closed the socket by the time it is discarded.
        self._clients: dict[Subscriber, tuple[socket.socket, int]] = {}
        self._epoll = _gevent.new_epoll()

    def __len__(self) -> int:
        return len(self._clients)

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when a client has gone."""
        return None if self._epoll is None else self._epoll.fileno()

    def add(self, client: socket.socket, subscriber: Subscriber) -> None:
        """Watch a client, and end *subscriber* when it has gone."""
        descriptor = client.fileno()
        with self._lock:
            if self._epoll is not None:
                self._epoll.register(descriptor, _EVENTS)
            self._subscribers[descriptor] = subscriber
            self._clients[subscriber] = client, descriptor

    def discard(self, client: socket.socket, subscriber: Subscriber) -> None:
        """Stop watching a client; its socket may be closed when this returns."""
        with self._lock:
            if subscriber.overflowed:
                # The thread that serves it may have been faster than the hub's owner.
                _sockets.disconnect(client)
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
                if events & _ERROR:
                    _sockets.disconnect(self._clients[subscriber][0])
                subscriber.end()

    def disconnect(self, subscriber: Subscriber) -> None:
        """Disconnect a client that the server may be writing to."""
        with self._lock:
            client, _ = self._clients.get(subscriber, (None, -1))
            if client is not None:
                _sockets.disconnect(client)

    def disconnect_all(self) -> None:
        """Disconnect the remaining clients, which would delay the server's shutdown."""
        with self._lock:
            for client, _ in self._clients.values():
                _sockets.disconnect(client)
