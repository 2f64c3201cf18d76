"""Waiting for a condition, with a timeout."""

import faulthandler
import sys
import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 60.0
"""Seconds that a cold or busy machine may need for what takes another one milliseconds.

Only a test that fails waits for so long. What a test rules out takes longer still: a server's
graceful timeout, for example, or a keep-alive.
"""


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until *condition* is true, for at most *seconds*.

    If it does not become true, standard error shows what each thread of the test was doing.

    :param what: The condition in words, for the failure.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
