"""Logs outages of Redis: once per outage, not once per client or attempt.

Only the hub's owner uses it.
"""

import logging
import time
from typing import Final

from redis.backoff import FullJitterBackoff

from flask_sse._notices import Notices
from flask_sse._signals import redis_lost, redis_regained

_log: Final = logging.getLogger("flask_sse")

# redis-py computes 2 to this power, which overflows above 1023.
_MOST_DOUBLINGS: Final = 8


class Outage:
    """Counts the attempts to reach Redis.

    :param notices: Sends the signals of an outage.
    """

    def __init__(self, notices: Notices | None = None) -> None:
        self._notices = notices
        self._began = 0.0
        self._attempts = 0
        self._backoff = FullJitterBackoff(cap=2.0, base=0.1)

    def note_failure(self, error: Exception, *, unforeseen: bool = False) -> float:
        """Note a failure; return how many seconds to wait.

        :param unforeseen: Whether to log the error with its traceback.
        """
        if not self._attempts:
            text = "Redis is unavailable: %s; streams stay open and continue when it is back"
            _log.warning(text, error, exc_info=error if unforeseen else None)
            self._began = time.monotonic()
            if self._notices is not None:
                self._notices.later(redis_lost, error=error)
        self._attempts += 1
        return self._backoff.compute(min(self._attempts, _MOST_DOUBLINGS))

    def note_success(self) -> None:
        """Note that Redis has answered."""
        if self._attempts:
            _log.warning("Redis is back after %d attempts", self._attempts)
            if self._notices is not None:
                seconds = time.monotonic() - self._began
                self._notices.later(redis_regained, duration=seconds, attempts=self._attempts)
            self._attempts = 0
