"""What can be found out about the server and about a request's client.

Nothing here imports a server or changes it, and nothing blocks.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final, NamedTuple, Self

from werkzeug.wsgi import FileWrapper

from flask_sse._system import greenlets

PATIENCE: Final = "flask_sse.patience"
"""With this key, a reader of the stream in this process says how long it waits."""

_SOCKET_KEYS: Final = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")


class ServerFacts(NamedTuple):
    """What a request reveals about its server and its client; it does not keep the environ."""

    environ_id: int
    """The identity of the WSGI environ, by which a request is recognized."""
    client: socket.socket | None
    """The socket of the client, if the server gives access to it in the environ."""
    is_uwsgi: bool
    """Whether uWSGI serves the request."""
    blocks: bool
    """Whether a long request blocks all other requests of this server."""
    occupies_thread: bool
    """Whether a stream takes one of the threads that the server has for requests."""
    patience: Callable[[], float] | None
    """Returns how many seconds the reader waits for the next piece. Only tests set it."""
    wrap: Callable[[Any], Iterable[bytes]]
    """Makes a response body from a file."""

    @classmethod
    def of(cls, environ: Mapping[str, Any]) -> Self:
        """Return the facts about a request, in the thread that serves it."""
        blocks = _serves_one_request_at_a_time(environ)
        return cls(
            environ_id=id(environ),
            client=_client_socket(environ),
            is_uwsgi=_is_uwsgi(environ),
            blocks=blocks,
            occupies_thread=not (blocks or _is_test_client(environ)),
            patience=environ.get(PATIENCE),
            wrap=_file_wrapper(environ),
        )

    def silence(self, keepalive: float | None) -> float | None:
        """Return how many seconds the reader waits before it sends a comment."""
        return keepalive if self.patience is None else self.patience()

    def open_client(self) -> socket.socket | None:
        """Return a socket of the client, which must be passed to :func:`release`.

        Call it in the thread or greenlet that reads the stream: only there does uWSGI know
        which client it serves.

        :return: `None` if the server gives no access to it, or no descriptor is left.
        """
        return _uwsgi_socket() if self.is_uwsgi else self.client


def _serves_one_request_at_a_time(environ: Mapping[str, Any]) -> bool:
    """Whether a long request blocks all other requests of this server.

    Flask's test client describes itself in the same way, and gevent's own server does not say
    that it uses greenlets.
    """
    if _is_bjoerns(environ):
        return True
    if _is_in_a_thread_of_wsgirefs(environ):
        return False
    return (
        not environ.get("wsgi.multithread")
        and not environ.get("wsgi.multiprocess")
        and not _is_test_client(environ)
        and not greenlets.is_patched()
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


def has_several_processes(environ: Mapping[str, Any]) -> bool | None:
    """Whether this server has several processes that handle requests.

    Bridges and bjoern always say so, and others never do.

    :return: `None` if only the other processes could tell.
    """
    if _is_uwsgi(environ):
        return bool(sys.modules["uwsgi"].numproc > 1)
    mod_wsgi: Any = sys.modules.get("mod_wsgi")
    if hasattr(mod_wsgi, "maximum_processes"):
        return bool(mod_wsgi.maximum_processes > 1)
    several = bool(environ.get("wsgi.multiprocess"))
    if str(environ.get("SERVER_SOFTWARE")).startswith(("gunicorn", "Werkzeug/")):
        return several
    return False if _is_test_client(environ) else None


def _is_test_client(environ: Mapping[str, Any]) -> bool:
    """Whether Flask's test client has called the application, and not a server.

    It gives no server name (RFC 3875, section 4.1.17). Bridges don't, either, but use threads.
    """
    return not (
        "SERVER_SOFTWARE" in environ
        or environ.get("wsgi.multithread")
        or environ.get("wsgi.multiprocess")
        or _is_uwsgi(environ)
    )


def _client_socket(environ: Mapping[str, Any]) -> socket.socket | None:
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


def _is_uwsgi(environ: Mapping[str, Any]) -> bool:
    """Whether uWSGI serves the request."""
    # The module exists only within uWSGI, where nothing else sets the key.
    return "uwsgi" in sys.modules and "uwsgi.version" in environ


def _uwsgi_socket() -> socket.socket | None:
    """Return a socket of the client that uWSGI serves in this thread or greenlet."""
    uwsgi: Any = sys.modules["uwsgi"]
    try:
        return _Duplicate(fileno=os.dup(uwsgi.connection_fd()))
    except OSError:
        return None


def release(client: socket.socket) -> None:
    """Close a socket if it belongs to us and not to the server."""
    if isinstance(client, _Duplicate):
        client.close()


def _file_wrapper(environ: Mapping[str, Any]) -> Callable[[Any], Iterable[bytes]]:
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
