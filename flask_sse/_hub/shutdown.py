"""The shutdown of a hub's loop: how far it has come, and how long clients may take.

Only the hub's loop changes it, and no clock is read here. Other threads may wait for its end.
"""

import math
import threading
from enum import Enum
from typing import Final

GRACE: Final = 1.0
"""Seconds for which clients may read what waits for them."""


class Stage(Enum):
    """What a loop does with streams."""

    SERVING = "serving"
    """Streams begin and continue."""
    STOPPING = "stopping"
    """All streams have been ended, and some connections still have data to send."""
    STOPPED = "stopped"
    """No connection is left."""


class Shutdown:
    """The stages of a loop, which follow each other once and in order.

    A loop that has nothing to do ends without having been told to stop. Then it leaves out
    :attr:`Stage.STOPPING`.
    """

    __slots__ = ("_deadline", "has_ended", "stage")

    def __init__(self) -> None:
        self.stage = Stage.SERVING
        self.has_ended = threading.Event()
        """Set when no connection is left."""
        self._deadline = math.inf

    def __repr__(self) -> str:
        return f"<Shutdown {self.stage.name}>"

    @property
    def has_begun(self) -> bool:
        """Whether all streams have been ended, and none can begin any more."""
        return self.stage is not Stage.SERVING

    def begin(self, now: float) -> None:
        """Note that no stream can begin any more."""
        if self.stage is Stage.SERVING:
            self._deadline = now + GRACE
            self.stage = Stage.STOPPING

    def is_overdue(self, now: float) -> bool:
        """Whether the clients have had enough time."""
        return now > self._deadline

    def finish(self) -> None:
        """Note that no connection is left."""
        self.stage = Stage.STOPPED
        self.has_ended.set()
