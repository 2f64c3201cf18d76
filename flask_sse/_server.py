"""What the WSGI server tells of itself and of a client's connection.

Nothing here imports a server or changes one, and nothing blocks.
"""

import _socket
import contextlib
import select
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, MutableMapping
from types import FrameType, ModuleType
from typing import Any, Final

_SOCKET_KEYS: Final = ("gunicorn.socket", "werkzeug.socket")
_USER_TIMEOUT: Final = 30_000
_SEND_BUFFER: Final = 1 << 17


def is_stopping() -> bool:
    """Whether this process is a gunicorn worker that has been told to stop.

    gunicorn says so nowhere, but the handler it has installed for ``SIGTERM`` is a
    method of its worker, and every kind of worker clears ``alive`` first, for a
    signal, for ``max_requests`` and for a reload.
    """
    base = sys.modules.get("gunicorn.workers.base")
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return base is not None and isinstance(worker, base.Worker) and not worker.alive


def client_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the socket of the request's client, where the server shows it."""
    for key in _SOCKET_KEYS:
        client = environ.get(key)
        # gunicorn's HTTP/2 streams share one, which belongs to none of them.
        if isinstance(client, socket.socket) and environ.get("HTTP_VERSION") != "2":
            return client
    return None


def drop_unneeded(environ: MutableMapping[str, Any]) -> None:
    """Take out of *environ* what a stream would hold for all of its time, for nothing.

    An application may do so (PEP 3333, "environ Variables"). gunicorn's function for
    early hints takes half a KiB, and no hint can come after the response.
    """
    environ.pop("wsgi.early_hints", None)


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


def stop_reading(client: socket.socket) -> None:
    """Have the server find that the client sends no further request.

    A stopping gunicorn would wait for one as long as for any other, which is 2 s.
    """
    _shut_down(client, socket.SHUT_RD)


def non_blocking_send(client: socket.socket) -> Callable[[bytes], int]:
    """Return a function that sends what a gevent socket takes at once.

    It is that of the socket inside, which gevent has made non-blocking. It belongs to
    that object and not to a descriptor: once the server has closed the socket it fails.
    """
    send: Callable[[bytes], int] = client._sock.send  # type: ignore[attr-defined]
    return send


def direct_framing(body: object, client: socket.socket) -> bool | None:
    """Tell how to frame what is written to *client* past the server, if that is safe.

    It is, where gunicorn's gevent worker itself holds *body* and answers over plain
    HTTP/1. Only gunicorn's response knows that, and it shows itself when it asks the
    body for its descriptor: who calls this must have been called for that.

    :return: `True` for chunks, `False` for bare bytes, `None` if it is not safe.
    """
    response = _asking_response(body, sys._getframe(2))
    safe = (
        response is not None
        and response.sock is client
        and response.response_length is None
        # uWSGI's protocol came with gunicorn 24.
        and getattr(response.cfg, "protocol", "http") == "http"
        and _is_cooperative(client)
        and not isinstance(client, ssl.SSLSocket)
    )
    return bool(response.is_chunked()) if safe else None


def _asking_response(body: object, asking: FrameType) -> Any:
    """Return gunicorn's response to HTTP/1, if it is what asks *body* for a descriptor.

    Where a middleware has wrapped the body, gunicorn asks nobody, or that middleware's
    object, which may hand the question on.
    """
    util = sys.modules.get("gunicorn.util")
    wsgi = sys.modules.get("gunicorn.http.wsgi")
    sending = asking.f_back
    if util is None or wsgi is None or sending is None:
        return None
    if asking.f_code is not util.has_fileno.__code__ or asking.f_locals.get("obj") is not body:
        return None
    if sending.f_code is not wsgi.Response.sendfile.__code__:
        return None
    response = sending.f_locals["self"]
    # The response to HTTP/2 is of a subclass.
    return response if type(response) is wsgi.Response else None


def new_epoll() -> "select.epoll | None":
    """Return a new epoll object, where the system has them."""
    # gevent takes `epoll` out of the module it patches, and keeps it.
    monkey = _patched_by_gevent()
    if monkey is not None:
        found: Callable[[], select.epoll] | None = monkey.get_original("select", "epoll")
    else:
        found = getattr(select, "epoll", None)
    return None if found is None else found()


def _is_cooperative(client: socket.socket) -> bool:
    gevent_socket = sys.modules.get("gevent.socket")
    return (
        _patched_by_gevent() is not None
        and gevent_socket is not None
        and isinstance(client, gevent_socket.socket)
    )


def _patched_by_gevent() -> ModuleType | None:
    monkey = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("threading") else None


def _shut_down(client: socket.socket, how: int) -> None:
    # The socket stays open, for the server to close: its descriptor must not be used
    # again while somebody still holds it. gevent's own `shutdown` would raise EBADF in
    # the greenlet that is writing, which gunicorn logs with a traceback; that of the
    # socket inside ends the writing quietly.
    with contextlib.suppress(OSError):
        _socket.socket.shutdown(getattr(client, "_sock", client), how)
