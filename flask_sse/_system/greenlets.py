"""What gevent has changed in this process, and how to use the originals.

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
    """Whether a native thread of ours runs in addition to gevent's own thread.

    If one of them releases a gevent lock, the other may not wake up in time.
    """
    return bool(_native_threads)


def is_patched() -> bool:
    """Whether threads are greenlets in this process."""
    return _monkey() is not None


def in_foreign_thread() -> bool:
    """Whether this is a native thread other than the one in which gevent runs the greenlets.

    gevent's sockets work only in the native thread that made them.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        return False
    return not sys.modules["gevent"].get_hub().main_hub


def start_thread(function: Callable[[], None], name: str) -> None:
    """Start a thread, or a greenlet if gevent has patched.

    In a native thread other than gevent's, a greenlet would end with that thread. There, the
    new thread is native too, and has its own gevent loop.

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
    """Start a thread, or a greenlet in this thread's loop if gevent has patched.

    :raises RuntimeError: if the process is out of threads.
    """
    if not is_patched():
        threading.Thread(target=function, name=name, daemon=True).start()
        return

    def run() -> None:
        threading.current_thread().name = name
        function()

    # A patched thread would start only after all waiting greenlets have run, and its starter
    # would wait for the same time: more than 4 s with 2,000 clients at once.
    sys.modules["gevent"].spawn_later(0, run)


def new_epoll() -> "select.epoll | None":
    """Return a new epoll object, if the system has epoll and eventlet has not patched."""
    found = find_epoll()
    return None if found is None else found()


def find_epoll() -> "Callable[[], select.epoll] | None":
    """Return the function that makes an epoll object, if there is one."""
    # gevent and eventlet remove `epoll` from the module that they patch; gevent keeps it.
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
