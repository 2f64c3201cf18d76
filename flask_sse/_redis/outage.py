"""Counts the attempts to reach Redis, and says once that it is away, and once that it is back.

Only the hub's loop uses it. Nothing blocks.
"""

import logging
from typing import Final

from redis.backoff import FullJitterBackoff

from flask_sse._callbacks.receivers import Notices
from flask_sse._system.clock import monotonic
from flask_sse.signals import redis_lost, redis_regained

_log: Final = logging.getLogger("flask_sse")

# redis-py computes 2 to this power, which overflows above 1023.
_MOST_DOUBLINGS: Final = 8


class Outage:
    """The time since Redis, or one node of a cluster, has last answered.

    :param notices: Sends the signals of an outage.
    :param name: What is away, for the log.
    :param longest: The longest wait before the next attempt, in seconds.
    """

    def __init__(
        self, notices: Notices | None = None, name: str = "Redis", longest: float = 2.0
    ) -> None:
        self._notices = notices
        self._name = name
        self._began = 0.0
        self._attempts = 0
        self._backoff = FullJitterBackoff(cap=longest, base=0.1)

    @property
    def is_on(self) -> bool:
        """Whether Redis has not answered since a failure."""
        return bool(self._attempts)

    def of_node(self, name: str, longest: float) -> "Outage":
        """Return an outage for one node of this cluster."""
        return Outage(self._notices, f"the Redis node {name}", longest)

    def note_failure(self, error: Exception, *, unforeseen: bool = False) -> float:
        """Note a failure; return how many seconds to wait.

        :param unforeseen: Whether to log the error with its traceback.
        """
        if not self._attempts:
            text = "%s is unavailable: %s; streams stay open and continue when it is back"
            _log.warning(text, self._name, error, exc_info=error if unforeseen else None)
            self._began = monotonic()
            if self._notices is not None:
                self._notices.later(redis_lost, error=error)
        self._attempts += 1
        return self._backoff.compute(min(self._attempts, _MOST_DOUBLINGS))

    def note_success(self) -> None:
        """Note that Redis has answered."""
        if self._attempts:
            _log.warning("%s is back after %d attempts", self._name, self._attempts)
            self._end()

    def note_unneeded(self) -> None:
        """Note that no channel is expected of this node any more: other nodes may have them."""
        if self._attempts:
            _log.warning("%s is no longer needed", self._name)
            self._end()

    def _end(self) -> None:
        if self._notices is not None:
            seconds = monotonic() - self._began
            self._notices.later(redis_regained, duration=seconds, attempts=self._attempts)
        self._attempts = 0
