"""Operations on a client's socket while the server still owns it.

Nothing here blocks, and nothing closes a socket: a descriptor must not be reused while
the server still holds it.
"""

import _socket
import contextlib
import socket
from typing import Final

_USER_TIMEOUT: Final = 30_000
_SEND_BUFFER: Final = 1 << 17


def bound_costs(client: socket.socket) -> None:
    """Limit the costs of a client that is slow, or that has vanished without closing.

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
        # The server's next write must fail as it does for any client that has gone. For a
        # host that has vanished, the server would log the reason with a traceback.
        client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def stop_reading(client: socket.socket) -> None:
    """Make the server see that the client sends no further requests.

    A stopping gunicorn would wait up to 2 s for the next request.
    """
    _shut_down(client, socket.SHUT_RD)


def _shut_down(client: socket.socket, how: int) -> None:
    # gevent's own `shutdown` would raise EBADF in the greenlet that is writing, which
    # gunicorn logs with a traceback, and the `shutdown` of TLS would send the rest
    # unencrypted. The `shutdown` of the inner socket ends the writing quietly.
    inner = getattr(client, "_sock", client)
    with contextlib.suppress(OSError):
        if isinstance(inner, _socket.socket):
            _socket.socket.shutdown(inner, how)
        else:
            client.shutdown(how)
