"""Whether Redis is away: said once an outage, not once a client or an attempt.

For the hub's owner alone.
"""

import logging
from typing import Final

from redis.backoff import FullJitterBackoff

_log: Final = logging.getLogger("flask_sse")

# redis-py raises 2 to this power, and overflows beyond 1023.
_MOST_DOUBLINGS: Final = 8


class Outage:
    """Counts the attempts to reach Redis."""

    def __init__(self) -> None:
        self._attempts = 0
        self._backoff = FullJitterBackoff(cap=2.0, base=0.1)

    def goes_on(self, error: Exception, *, unforeseen: bool = False) -> float:
        """Note a failure; return for how many seconds to wait.

        :param unforeseen: Whether to log where the error comes from.
        """
        if not self._attempts:
            text = "Redis is away: %s; streams stay open and go on when it is back"
            _log.warning(text, error, exc_info=error if unforeseen else None)
        self._attempts += 1
        return self._backoff.compute(min(self._attempts, _MOST_DOUBLINGS))

    def is_over(self) -> None:
        """Note that Redis has answered."""
        if self._attempts:
            _log.warning("Redis is back after %d attempts", self._attempts)
            self._attempts = 0
