"""What can be found out about the server and about a request's client.

Nothing here imports a server or changes it, and nothing blocks.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final

from werkzeug.wsgi import FileWrapper

from flask_sse import _gevent

PATIENCE: Final = "flask_sse.patience"
"""With this key, a reader of the stream in this process says how long it waits."""

_SOCKET_KEYS: Final = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")


def is_stopping() -> bool:
    """Whether this process is a worker of gunicorn or uvicorn that has been told to stop.

    Neither has an interface for this, but their handler for ``SIGTERM`` is a method of the
    worker. A gunicorn worker clears ``alive`` first: for a signal, for ``max_requests`` and
    for a reload. Uvicorn sets ``should_exit``, and waits for the streams to end.
    """
    worker: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    gunicorn = sys.modules.get("gunicorn.workers.base")
    if gunicorn is not None and isinstance(worker, gunicorn.Worker):
        return not worker.alive
    uvicorn = sys.modules.get("uvicorn.server")
    return uvicorn is not None and isinstance(worker, uvicorn.Server) and bool(worker.should_exit)


def serves_one_request_at_a_time(environ: Mapping[str, Any]) -> bool:
    """Whether a long request blocks all other requests of this server.

    Flask's test client describes itself in the same way, but gives no server name (RFC 3875,
    section 4.1.17), and gevent's own server does not say that it uses greenlets.
    """
    if _is_bjoerns(environ):
        return True
    if _is_in_a_thread_of_wsgirefs(environ):
        return False
    return (
        not environ.get("wsgi.multithread")
        and not environ.get("wsgi.multiprocess")
        and ("SERVER_SOFTWARE" in environ or is_uwsgis(environ))
        and not _gevent.is_patched()
    )


def _is_bjoerns(environ: Mapping[str, Any]) -> bool:
    """Whether the server is bjoern, which says that it has several processes.

    It has one loop, in which it also waits for the application's next piece. Its file wrapper
    is the only one whose class is not in a module.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    return "bjoern" in sys.modules and getattr(wrapper, "__module__", None) == "builtins"


def _is_in_a_thread_of_wsgirefs(environ: Mapping[str, Any]) -> bool:
    """Whether wsgiref's server uses a thread for the request, which it never says.

    With `socketserver.ThreadingMixIn`, it uses a thread for each request.
    """
    is_wsgirefs = str(environ.get("SERVER_SOFTWARE", "")).startswith("WSGIServer/")
    return is_wsgirefs and threading.current_thread() is not threading.main_thread()


def client_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the socket of the request's client, if the server gives access to it."""
    # gunicorn's HTTP/2 streams share a socket, which none of them owns.
    if str(environ.get("SERVER_PROTOCOL", "")).startswith("HTTP/2"):
        return None
    for client in _possible_sockets(environ):
        if isinstance(client, socket.socket):
            return client
    return None


def _possible_sockets(environ: Mapping[str, Any]) -> Iterator[object]:
    """Yield objects that may be the socket of the request's client."""
    for key in _SOCKET_KEYS:
        yield environ.get(key)
    # waitress: a method of the object that serves the client.
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    yield getattr(channel, "socket", None)
    # gevent, cheroot, eventlet, wsgiref: the request's body is read from a file of the socket.
    # Python keeps the socket there under this private name.
    body = environ.get("wsgi.input")
    file = getattr(getattr(body, "rfile", body), "raw", None)
    yield getattr(file, "_sock", None)


class _Duplicate(socket.socket):
    """Our own descriptor for one of the server's connections."""

    __slots__ = ()


def is_uwsgis(environ: Mapping[str, Any]) -> bool:
    """Whether uWSGI serves the request."""
    # The module exists only within uWSGI, where nothing else sets the key.
    return "uwsgi" in sys.modules and "uwsgi.version" in environ


def uwsgi_socket() -> socket.socket | None:
    """Return a socket of the client that uWSGI serves in this thread or greenlet.

    :return: a socket that must be passed to :func:`release`, or `None` if no descriptor is
        left.
    """
    uwsgi: Any = sys.modules["uwsgi"]
    try:
        return _Duplicate(fileno=os.dup(uwsgi.connection_fd()))
    except OSError:
        return None


def release(client: socket.socket) -> None:
    """Close a socket if it belongs to us and not to the server."""
    if isinstance(client, _Duplicate):
        client.close()


def asgi_input(environ: Mapping[str, Any]) -> Any:
    """Return a2wsgi's input of the request, if an ASGI server uses a2wsgi."""
    a2wsgi = sys.modules.get("a2wsgi.wsgi")
    body = environ.get("wsgi.input")
    return body if a2wsgi is not None and isinstance(body, a2wsgi.Body) else None


def call_when_gone(asgi_input: Any, func: Callable[[], object]) -> None:
    """Call *func* once the client has gone or the response has ended.

    An ASGI server drops data for a client that has gone. Only `receive` tells the application,
    and a2wsgi makes it available in the input of the request.
    """
    import asyncio  # noqa: PLC0415 - a2wsgi has imported it, and other servers don't need it

    async def wait() -> None:
        while (await asgi_input.receive())["type"] != "http.disconnect":
            pass
        func()

    asyncio.run_coroutine_threadsafe(wait(), asgi_input.loop)


def patience(environ: Mapping[str, Any]) -> Callable[[], float] | None:
    """Return a function that returns how many seconds the reader waits for the next piece.

    Only tests set it, not servers.
    """
    found: Callable[[], float] | None = environ.get(PATIENCE)
    return found


def file_wrapper(environ: Mapping[str, Any]) -> Callable[[Any], Iterable[bytes]]:
    """Return a wrapper that makes a response body from a file: under gunicorn, gunicorn's own.

    PEP 3333 lets a server read a file as it likes. uWSGI's wrapper continues to read when its
    client has gone; with an iterator, uWSGI stops.
    """
    wrapper: Callable[[Any], Iterable[bytes]] | None = environ.get("wsgi.file_wrapper")
    gunicorn = sys.modules.get("gunicorn.http.wsgi")
    if wrapper is not None and gunicorn is not None and wrapper is gunicorn.FileWrapper:
        return wrapper
    return FileWrapper


def prepare(environ: MutableMapping[str, Any]) -> None:
    """Tell the server in *environ* that the response is a stream.

    An application may change it (PEP 3333, "environ Variables").
    """
    # gunicorn's function for early hints takes half a KiB as long as the stream is open, and
    # hints can't be sent after the response.
    environ.pop("wsgi.early_hints", None)
    if "eventlet.posthooks" in environ:
        # eventlet would hold data back until it has 4 KiB.
        environ["eventlet.minimum_write_chunk_size"] = 0
