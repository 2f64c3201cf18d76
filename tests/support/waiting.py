"""Waiting for a condition, with a timeout."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Wait until *condition* is true, for at most *seconds*.

    :param what: The condition in words, for the failure.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
