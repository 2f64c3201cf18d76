"""What gevent has changed in this process, and how to do without.

Nothing here imports gevent, and nothing blocks.
"""

import select
import socket
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

_native_threads: Final[list[str]] = []


def crosses_threads() -> bool:
    """Whether a thread of ours runs beside gevent's own.

    A lock of gevent's that one of them releases may not wake the other in time.
    """
    return bool(_native_threads)


def is_patched() -> bool:
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
        start_beside(function, name)
        return
    gevent: Any = sys.modules["gevent"]

    def run() -> None:  # pragma: no cover - coverage does not follow threads of this kind
        try:
            function()
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    start: Callable[..., object] = gevent.monkey.get_original("_thread", "start_new_thread")
    start(run, ())
    _native_threads.append(name)


def start_beside(function: Callable[[], None], name: str) -> None:
    """Start a thread, a greenlet in this thread's loop where gevent has patched.

    :raises RuntimeError: if the process is out of threads.
    """
    if not is_patched():
        threading.Thread(target=function, name=name, daemon=True).start()
        return

    def run() -> None:
        threading.current_thread().name = name
        function()

    # A patched thread would start when all greenlets that wait have had their turn, and its
    # starter would wait as long again: with 2,000 clients at once for more than 4 s.
    sys.modules["gevent"].spawn_later(0, run)


def new_epoll() -> "select.epoll | None":
    """Return a new epoll object, where the system has them and eventlet has not patched."""
    found = find_epoll()
    return None if found is None else found()


def find_epoll() -> "Callable[[], select.epoll] | None":
    """Return what makes an epoll object, if there is something."""
    # gevent and eventlet take `epoll` out of the module they patch, and gevent keeps it.
    monkey = _monkey()
    found: Callable[[], select.epoll] | None = (
        getattr(select, "epoll", None) if monkey is None else monkey.get_original("select", "epoll")
    )
    return found


def is_gevents(client: socket.socket) -> bool:
    """Whether the socket is gevent's, in a process that gevent has patched."""
    gevent_socket = sys.modules.get("gevent.socket")
    return is_patched() and gevent_socket is not None and isinstance(client, gevent_socket.socket)


def _monkey() -> ModuleType | None:
    monkey = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("threading") else None
