"""How gunicorn is relieved of a client's connection.

Nothing here imports gunicorn or changes it, and nothing blocks.
"""

import _socket
import os
import socket
import ssl
import sys
from types import FrameType
from typing import Any

from flask_sse import _gevent, _syscalls


class Handover:
    """A client's connection that gunicorn can be relieved of.

    :param response: gunicorn's response to the client, of which nothing is sent yet.
    :param client: The connection, which gunicorn owns until :meth:`take`.
    """

    __slots__ = ("_client", "_response", "chunked")

    def __init__(self, response: Any, client: socket.socket) -> None:
        self._response = response
        self._client = client
        self.chunked = bool(response.is_chunked())

    def take(self) -> tuple[int, bytes]:
        """Take the connection; gunicorn is left with one that has ended.

        :return: the descriptor, which does not block and is the caller's to close; and the
            response's head as gunicorn would have sent it. It tells the client that the
            connection ends with the stream.
        :raises OSError: if there is no descriptor to be had; nothing has changed then.
        """
        response = self._response
        response.force_close()
        head = response.default_headers()
        head += [f"{name}: {value}\r\n" for name, value in response.headers]
        descriptor = _detach(self._client)
        response.headers_sent = True
        os.set_blocking(descriptor, False)
        return descriptor, f"{''.join(head)}\r\n".encode("latin-1")


def find_handover(body: object, client: socket.socket) -> Handover | None:
    """Return the hand-over of *client*, where it is safe.

    It is where gunicorn's sync, gthread or gevent worker itself holds *body* and answers
    over plain HTTP/1. Only gunicorn's response knows that, and it shows itself when it asks
    the body for its descriptor: call this from the body's ``fileno``, and nowhere else.
    """
    response = _asking_response(body, sys._getframe(2))  # pyright: ignore[reportPrivateUsage]
    if response is None or not _syscalls.AVAILABLE or _gevent.find_epoll() is None:
        return None
    safe = (
        response.sock is client
        and response.response_length is None
        # uWSGI's protocol came with gunicorn 24.
        and getattr(response.cfg, "protocol", "http") == "http"
        and not isinstance(client, ssl.SSLSocket)
        and (_gevent.is_gevents(client) or type(client) is socket.socket)
    )
    return Handover(response, client) if safe else None


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


def _detach(client: socket.socket) -> int:
    """Return a descriptor of the connection that the server knows nothing of."""
    if _gevent.is_gevents(client):
        # The number stays the same, so what gevent's loop believes of it stays true.
        return client.detach()
    # With `detach` gunicorn's threads would fail where they go on with the socket. So theirs
    # leads to a peer that has closed: writing fails, reading finds the end, closing works.
    dead, peer = _socket.socketpair()
    peer.close()
    try:
        descriptor = os.dup(client.fileno())
        try:
            os.dup2(dead.fileno(), client.fileno(), inheritable=False)
        except OSError:
            os.close(descriptor)
            raise
    finally:
        dead.close()
    return descriptor
