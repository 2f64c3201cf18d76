"""Something that may block, done in another thread, because Redis must not delay the clients.

Only the hub's loop uses it, and nothing blocks there.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from flask_sse._system import greenlets
from flask_sse._system.poller import Waker

_Result = TypeVar("_Result")


class Attempt(Generic[_Result]):
    """One call of a function in a thread of its own.

    :param function: It may block, and may raise any exception.
    :param discard: Called with a result that nobody wants any more.
    :param waker: Ends the loop's wait when there is a result.
    """

    def __init__(
        self, function: Callable[[], _Result], discard: Callable[[_Result], object], waker: Waker
    ) -> None:
        self._function = function
        self._discard = discard
        self._waker = waker
        self.result: _Result | None = None
        self.error: Exception | None = None
        self.is_done = False
        self._is_abandoned = False

    def start(self, name: str) -> None:
        """Start the thread.

        :param name: Its name.
        """
        try:
            greenlets.start_beside(self._run, name)
        except RuntimeError as error:
            # The process is out of threads.
            self.error = error
            self.is_done = True

    def abandon(self) -> None:
        """Discard the result now, or as soon as there is one."""
        self._is_abandoned = True
        if self.result is not None:
            self._discard(self.result)

    def _run(self) -> None:
        try:
            self.result = self._function()
            if self._is_abandoned:
                self._discard(self.result)
        except Exception as error:  # noqa: BLE001 - there is another attempt after any error
            self.error = error
        finally:
            self.is_done = True
            self._waker.set()
