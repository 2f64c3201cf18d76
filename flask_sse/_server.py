"""What the server tells about itself, and how it is relieved of a client's connection.

Nothing here imports a server or changes it, and nothing blocks.
"""

import _socket
import contextlib
import os
import select
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from types import FrameType, ModuleType
from typing import Any, Final

from werkzeug.wsgi import FileWrapper

from flask_sse import _syscalls

_SOCKET_KEYS: Final = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")
_USER_TIMEOUT: Final = 30_000
_SEND_BUFFER: Final = 1 << 17


def is_stopping() -> bool:
    """Whether this process is a worker of gunicorn or uvicorn that has been told to stop.

    Neither says so, but the handler it has installed for ``SIGTERM`` is a method of its
    worker. Each of gunicorn's clears ``alive`` first: for a signal, for ``max_requests`` and
    for a reload. Uvicorn's sets ``should_exit``, and waits for the streams to end.
    """
    worker: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    gunicorn = sys.modules.get("gunicorn.workers.base")
    if gunicorn is not None and isinstance(worker, gunicorn.Worker):
        return not worker.alive
    uvicorn = sys.modules.get("uvicorn.server")
    return uvicorn is not None and isinstance(worker, uvicorn.Server) and bool(worker.should_exit)


def is_patched_by_gevent() -> bool:
    """Whether threads are greenlets here."""
    return _monkey() is not None


def in_foreign_thread() -> bool:
    """Whether this is a native thread beside the one in which gevent runs the greenlets.

    gevent's sockets work in the native thread alone that has made them.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        return False
    return not sys.modules["gevent"].get_hub().main_hub


def start_thread(function: Callable[[], None], name: str) -> None:
    """Start a thread, a greenlet where gevent has patched.

    In a native thread beside gevent's, a greenlet would end with that thread: so there the new
    thread is native too, with a loop of gevent's of its own.

    :raises RuntimeError: if the process is out of threads.
    """
    if not in_foreign_thread():
        threading.Thread(target=function, name=name, daemon=True).start()
        return
    gevent: Any = sys.modules["gevent"]

    def run() -> None:
        try:
            function()
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    start: Callable[..., object] = gevent.monkey.get_original("_thread", "start_new_thread")
    start(run, ())


def serves_one_request_at_a_time(environ: Mapping[str, Any]) -> bool:
    """Whether a request that takes long keeps this server from all others.

    Flask's test client says the same of itself, but no server's name (RFC 3875,
    section 4.1.17), and gevent's own server does not say that it has greenlets.
    """
    if _is_bjoerns(environ):
        return True
    return (
        not environ.get("wsgi.multithread")
        and not environ.get("wsgi.multiprocess")
        and ("SERVER_SOFTWARE" in environ or is_uwsgis(environ))
        and not is_patched_by_gevent()
    )


def _is_bjoerns(environ: Mapping[str, Any]) -> bool:
    """Whether the server is bjoern, which says that it has several processes.

    It has one loop, in which it also waits for what the application yields. Its class for
    files is the only one that is part of no module.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    return "bjoern" in sys.modules and getattr(wrapper, "__module__", None) == "builtins"


def client_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the socket of the request's client, where the server shows it."""
    # gunicorn's streams of HTTP/2 share a socket, which belongs to none of them.
    if str(environ.get("SERVER_PROTOCOL", "")).startswith("HTTP/2"):
        return None
    for client in _shown_sockets(environ):
        if isinstance(client, socket.socket):
            return client
    return None


def _shown_sockets(environ: Mapping[str, Any]) -> Iterator[object]:
    """Yield what may be the socket of the request's client."""
    for key in _SOCKET_KEYS:
        yield environ.get(key)
    # waitress: a method of what serves the client.
    channel = getattr(environ.get("waitress.client_disconnected"), "__self__", None)
    yield getattr(channel, "socket", None)
    # gevent, cheroot, eventlet, wsgiref: the request's body is read from the socket, through a
    # file of it. Python keeps the socket there under this name, and shows it nowhere.
    body = environ.get("wsgi.input")
    file = getattr(getattr(body, "rfile", body), "raw", None)
    yield getattr(file, "_sock", None)


class _Duplicate(socket.socket):
    """A descriptor of our own for a connection of the server's."""

    __slots__ = ()


def is_uwsgis(environ: Mapping[str, Any]) -> bool:
    """Whether uWSGI serves the request."""
    # The module exists within uWSGI alone, where nobody else sets the key.
    return "uwsgi" in sys.modules and "uwsgi.version" in environ


def uwsgi_socket() -> socket.socket | None:
    """Return a socket of the client that uWSGI serves in this thread or greenlet.

    :return: one that has to be given to :func:`release`, or `None` if there is no descriptor
        to be had.
    """
    uwsgi: Any = sys.modules["uwsgi"]
    try:
        return _Duplicate(fileno=os.dup(uwsgi.connection_fd()))
    except OSError:
        return None


def release(client: socket.socket) -> None:
    """Close what belongs to us and not to the server."""
    if isinstance(client, _Duplicate):
        client.close()


def asgi_input(environ: Mapping[str, Any]) -> Any:
    """Return a2wsgi's input of the request, where an ASGI server serves through it."""
    a2wsgi = sys.modules.get("a2wsgi.wsgi")
    body = environ.get("wsgi.input")
    return body if a2wsgi is not None and isinstance(body, a2wsgi.Body) else None


def call_when_gone(asgi_input: Any, func: Callable[[], object]) -> None:
    """Have *func* called once the client has gone or the response has ended.

    An ASGI server drops what it is given for a client that has gone. It says so in answer to
    `receive` alone, which a2wsgi shows in the input of the request.
    """
    import asyncio  # noqa: PLC0415 - a2wsgi has imported it, and other servers do without

    async def wait() -> None:
        while (await asgi_input.receive())["type"] != "http.disconnect":
            pass
        func()

    asyncio.run_coroutine_threadsafe(wait(), asgi_input.loop)


def file_wrapper(environ: Mapping[str, Any]) -> Callable[[Any], Iterable[bytes]]:
    """Return what makes of a file the body of a response: gunicorn's own, where it serves.

    PEP 3333 leaves a server free to read a file as it likes. uWSGI's wrapper goes on reading
    when its client has gone, and with an iterator uWSGI does not.
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
    # gunicorn's function for early hints takes half a KiB for as long as the stream lasts, and
    # no hint can come after the response.
    environ.pop("wsgi.early_hints", None)
    if "eventlet.posthooks" in environ:
        # eventlet would hold back what comes until it has 4 KiB.
        environ["eventlet.minimum_write_chunk_size"] = 0


def bound_costs(client: socket.socket) -> None:
    """Bound what a client can cost that is slow, or gone without a word.

    The kernel would let the send buffer grow to megabytes, and would try for a
    quarter of an hour to reach a host that has vanished (tcp(7), TCP_USER_TIMEOUT).
    """
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT") and client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)


def disconnect(client: socket.socket) -> None:
    """End a connection that the server's own thread may be writing to."""
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


def new_epoll() -> "select.epoll | None":
    """Return a new epoll object, where the system has them and eventlet has not patched."""
    found = _find_epoll()
    return None if found is None else found()


def _find_epoll() -> "Callable[[], select.epoll] | None":
    # gevent and eventlet take `epoll` out of the module they patch, and gevent keeps it.
    monkey = _monkey()
    found: Callable[[], select.epoll] | None = (
        getattr(select, "epoll", None) if monkey is None else monkey.get_original("select", "epoll")
    )
    return found


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
    if response is None or not _syscalls.AVAILABLE or _find_epoll() is None:
        return None
    safe = (
        response.sock is client
        and response.response_length is None
        # uWSGI's protocol came with gunicorn 24.
        and getattr(response.cfg, "protocol", "http") == "http"
        and not isinstance(client, ssl.SSLSocket)
        and (_is_gevents(client) or type(client) is socket.socket)
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
    if _is_gevents(client):
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


def _is_gevents(client: socket.socket) -> bool:
    """Whether the socket is gevent's, in a process that gevent has patched."""
    gevent_socket = sys.modules.get("gevent.socket")
    return (
        is_patched_by_gevent()
        and gevent_socket is not None
        and isinstance(client, gevent_socket.socket)
    )


def _monkey() -> ModuleType | None:
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
