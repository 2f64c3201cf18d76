"""What is done with a client's socket beside the server, which owns it.

Nothing here blocks, and nothing closes a socket: a descriptor must not be used again
while somebody still holds it.
"""

import _socket
import contextlib
import select
import socket
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

_KEYS: Final = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")
_USER_TIMEOUT: Final = 30_000
_SEND_BUFFER: Final = 1 << 17


def of_client(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the socket of the request's client, where the server shows it."""
    for key in _KEYS:
        client = environ.get(key)
        # gunicorn's HTTP/2 streams share one, which belongs to none of them.
        if isinstance(client, socket.socket) and environ.get("HTTP_VERSION") != "2":
            return client
    return None


def prepare(client: socket.socket) -> None:
    """Bound what a client can cost that is slow or gone without a word.

    The kernel would let the send buffer grow to megabytes, and would try for a
    quarter of an hour to reach a host that has vanished (tcp(7), TCP_USER_TIMEOUT).
    """
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT") and client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)


def hang_up(client: socket.socket) -> None:
    """End a client's connection, though its own thread may be writing to it."""
    _shut_down(client, socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        # What the server still writes is to fail as it does for any client that has gone:
        # of a host that vanished it would log the reason, with a traceback.
        client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def stop_reading(client: socket.socket) -> None:
    """Have the server find that the client sends no further request.

    A stopping gunicorn would wait for one as long as for any other, which is 2 s.
    """
    _shut_down(client, socket.SHUT_RD)


def is_cooperative(client: socket.socket) -> bool:
    """Whether the socket is gevent's, in a process that gevent has patched."""
    gevent_socket = sys.modules.get("gevent.socket")
    return (
        _patched_by_gevent() is not None
        and gevent_socket is not None
        and isinstance(client, gevent_socket.socket)
    )


def non_blocking_send(client: socket.socket) -> Callable[[bytes], int]:
    """Return a function that sends what a gevent socket takes at once.

    It is that of the socket inside, which gevent has made non-blocking. It belongs to
    that object and not to a descriptor: once the server has closed the socket it fails.
    """
    inner: socket.socket = getattr(client, "_sock")  # noqa: B009 - no type tells of it
    return inner.send


def new_epoll() -> "select.epoll | None":
    """Return a new epoll object, where the system has them."""
    # gevent takes `epoll` out of the module it patches, and keeps it.
    monkey = _patched_by_gevent()
    if monkey is not None:
        found: Callable[[], select.epoll] | None = monkey.get_original("select", "epoll")
    else:
        found = getattr(select, "epoll", None)
    return None if found is None else found()


def _patched_by_gevent() -> ModuleType | None:
    monkey = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("threading") else None


def _shut_down(client: socket.socket, how: int) -> None:
    # gevent's own `shutdown` would raise EBADF in the greenlet that is writing, which
    # gunicorn logs with a traceback, and that of TLS would let the rest go out in the
    # clear; that of the socket inside ends the writing quietly.
    inner = getattr(client, "_sock", client)
    with contextlib.suppress(OSError):
        if isinstance(inner, _socket.socket):
            _socket.socket.shutdown(inner, how)
        else:
            client.shutdown(how)
