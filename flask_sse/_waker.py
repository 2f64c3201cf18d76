"""Ends the wait of a hub's owner.

`Waker.set` may be called from any thread; the rest is for the owner alone.
"""

import contextlib
import socket


class Waker:
    """Ends the wait of the connection's owner, from any thread."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self.is_set = False

    def fileno(self) -> int:
        """Return the descriptor that can be read after `set`."""
        return self._receiver.fileno()

    def set(self) -> None:
        """End the owner's wait, or its next one."""
        if not self.is_set:
            self.is_set = True
            # The owner may have ended and closed it.
            with contextlib.suppress(OSError):
                self._sender.send(b"\0")

    def clear(self) -> None:
        """Wait again from now on."""
        with contextlib.suppress(BlockingIOError):
            self._receiver.recv(64)
        self.is_set = False

    def close(self) -> None:
        """Give the descriptors back."""
        self._receiver.close()
        self._sender.close()
