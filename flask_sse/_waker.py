"""Ends the wait of a hub's owner.

`Waker.set` can be called from any thread; only the owner uses the rest.
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
        """Return the descriptor that becomes readable after `set`."""
        return self._receiver.fileno()

    def set(self) -> None:
        """End the owner's wait, or its next one."""
        if not self.is_set:
            self.is_set = True
            # The owner may have ended and closed it.
            with contextlib.suppress(OSError):
                self._sender.send(b"\0")

    def clear(self) -> None:
        """Reset, so that the owner can wait again."""
        with contextlib.suppress(BlockingIOError):
            self._receiver.recv(64)
        self.is_set = False

    def close(self) -> None:
        """Close the descriptors."""
        self._receiver.close()
        self._sender.close()
