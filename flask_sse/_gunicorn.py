"""What gunicorn tells of itself, where it is the server.

Nothing here imports gunicorn or changes it, and nothing blocks.
"""

import signal
import socket
import ssl
import sys
from collections.abc import MutableMapping
from types import FrameType
from typing import Any

from flask_sse._sockets import is_cooperative


def is_stopping() -> bool:
    """Whether this process is a gunicorn worker that has been told to stop.

    gunicorn says so nowhere, but the handler it has installed for ``SIGTERM`` is a
    method of its worker, and every kind of worker clears ``alive`` first, for a
    signal, for ``max_requests`` and for a reload.
    """
    base = sys.modules.get("gunicorn.workers.base")
    worker: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return base is not None and isinstance(worker, base.Worker) and not worker.alive


def drop_unneeded(environ: MutableMapping[str, Any]) -> None:
    """Take out of *environ* what a stream would hold for all of its time, for nothing.

    An application may do so (PEP 3333, "environ Variables"). gunicorn's function for
    early hints takes half a KiB, and no hint can come after the response.
    """
    environ.pop("wsgi.early_hints", None)


def direct_framing(body: object, client: socket.socket) -> bool | None:
    """Tell how to frame what is written to *client* past the server, if that is safe.

    It is, where gunicorn's gevent worker itself holds *body* and answers over plain
    HTTP/1. Only gunicorn's response knows that, and it shows itself when it asks the
    body for its descriptor: who calls this must have been called for that.

    :return: `True` for chunks, `False` for bare bytes, `None` if it is not safe.
    """
    response = _asking_response(body, sys._getframe(2))  # pyright: ignore[reportPrivateUsage]
    if response is None:
        return None
    safe = (
        response.sock is client
        and response.response_length is None
        # uWSGI's protocol came with gunicorn 24.
        and getattr(response.cfg, "protocol", "http") == "http"
        and is_cooperative(client)
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
