"""The conditions under which an application lets a client have a stream.

Pure, apart from the random number; nothing blocks.
"""

import random
from typing import Final, NamedTuple

_SPREAD: Final = 0.2
"""The part of the maximum age by which streams end earlier."""


class Admission(NamedTuple):
    """What is known about a client's stream before it begins; it never changes."""

    max_age: float | None = None
    """Seconds after which the stream ends at the latest; `None` for no limit."""

    def end_by(self, now: float) -> float | None:
        """Return the time at which a stream that begins now must end.

        It is random, so that clients that have connected together don't all reconnect together.
        """
        if self.max_age is None:
            return None
        return now + self.max_age * random.uniform(1 - _SPREAD, 1)


UNLIMITED: Final = Admission()
"""A stream that may last as long as its client wants."""
