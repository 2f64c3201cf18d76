"""The conditions under which an application lets a client have a stream.

It can be called from any thread; nothing blocks.
"""

import math
import random
from typing import Final, NamedTuple, Self

from flask_sse._event.revocation import Identity, check_client
from flask_sse._system.clock import monotonic

_SPREAD: Final = 0.2
"""The part of the maximum age by which streams may end earlier."""


class Admission(NamedTuple):
    """Whose stream it is, and how long it may last; this never changes."""

    max_age: float | None = None
    """Seconds after which the stream ends at the latest; `None` for no limit."""
    identity: Identity | None = None
    """The client's name, if the application has said it."""

    @classmethod
    def of(cls, client: object, max_age: object, default: float | None) -> Self:
        """Return the conditions of a stream that an application opens now.

        :param default: The maximum age if there is no other.
        :raises TypeError: if an argument has a wrong type.
        :raises ValueError: if an argument is out of range.
        """
        return cls(
            default if max_age is None else _check_age(max_age),
            None if client is None else Identity(check_client(client), monotonic()),
        )

    def end_by(self, now: float) -> float | None:
        """Return the time at which a stream that begins now must end.

        It is random, so that clients that have connected together don't all reconnect together.
        """
        if self.max_age is None:
            return None
        return now + self.max_age * random.uniform(1 - _SPREAD, 1)


UNLIMITED: Final = Admission()
"""A stream that may last as long as its client wants."""


def _check_age(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"max_age must be a number of seconds or None, not {seconds!r}")
    if not math.isfinite(seconds) or seconds <= 0:
        raise ValueError(
            f"max_age must be more than 0 seconds, not {seconds!r}; refuse the request of a client "
            f"whose time is over, for example with abort(403)"
        )
    return float(seconds)
