"""The clock that measures durations and deadlines, which tests of an application can't stop.

freezegun replaces ``time.monotonic`` in all modules: a thread that waits would never see its
deadline. It leaves the system call alone, and time-machine leaves this clock alone.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

monotonic: Final[Callable[[], float]] = (
    time.monotonic if sys.platform == "win32" else partial(time.clock_gettime, time.CLOCK_MONOTONIC)
)
"""Return seconds since some point in the past, like :func:`time.monotonic`."""
