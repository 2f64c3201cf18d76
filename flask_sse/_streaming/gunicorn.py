"""Takes a client's connection over from gunicorn.

Nothing here imports gunicorn or changes it, and nothing blocks.
"""

import _socket
import os
import socket
import ssl
import sys
from types import FrameType
from typing import Any

from flask_sse._system import greenlets, syscalls


class Handover:
    """A client's connection that can be taken over from gunicorn.

    :param response: gunicorn's response to the client; nothing of it has been sent yet.
    :param client: The connection, which gunicorn owns until :meth:`take`.
    """

    __slots__ = ("_client", "_response", "chunked")

    def __init__(self, response: Any, client: socket.socket) -> None:
        self._response = response
        self._client = client
        self.chunked = bool(response.is_chunked())

    def take(self) -> tuple[int, bytes]:
        """Take the connection; gunicorn keeps one that has ended.

        :return: the descriptor, which does not block and which the caller must close; and the
            response's head as gunicorn would have sent it. The head tells the client that the
            connection ends with the stream.
        :raises OSError: if no descriptor is left; nothing has changed then.
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
    """Return the hand-over of *client*, if it is safe.

    It is safe if gunicorn's sync, gthread or gevent worker itself holds *body* and answers
    over plain HTTP/1. Only gunicorn's response knows that, and the only access to it is when
    it asks the body for its descriptor: call this only from the body's ``fileno``.
    """
    response = _asking_response(body, sys._getframe(2))  # pyright: ignore[reportPrivateUsage]
    if response is None or not syscalls.AVAILABLE or greenlets.find_epoll() is None:
        return None
    safe = (
        response.sock is client
        and response.response_length is None
        # gunicorn 24 added the uWSGI protocol.
        and getattr(response.cfg, "protocol", "http") == "http"
        and not isinstance(client, ssl.SSLSocket)
        and (greenlets.is_gevents(client) or type(client) is socket.socket)
    )
    return Handover(response, client) if safe else None


def _asking_response(body: object, asking: FrameType) -> Any:
    """Return gunicorn's HTTP/1 response, if it is asking *body* for a descriptor.

    If a middleware has wrapped the body, gunicorn does not ask, or it asks the middleware's
    object, which may forward the call.
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
    # An HTTP/2 response is an instance of a subclass.
    return response if type(response) is wsgi.Response else None


def _detach(client: socket.socket) -> int:
    """Return a descriptor of the connection that the server does not know."""
    if greenlets.is_gevents(client):
        # The number stays the same, so the state of gevent's loop stays valid.
        return client.detach()
    # After `detach`, gunicorn's threads would fail when they use the socket again. So their
    # socket now has a peer that has closed: writing fails, reading returns the end, closing works.
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
