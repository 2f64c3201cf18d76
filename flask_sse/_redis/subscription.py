"""What a hub's loop needs of its subscriptions, whatever kind of Redis they are on.

Only the hub's loop uses them. Nothing blocks.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from flask_sse._redis.outage import Outage
from flask_sse._redis.pubsub import Arrival
from flask_sse._system.poller import Poller, Waker


class Subscription(Protocol):
    """The subscriptions of a hub's loop: on one Redis, or on the nodes of a cluster."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        ...

    @property
    def is_connecting(self) -> bool:
        """Whether a thread is working whose result the loop must handle."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether :meth:`read` has left data that a poller may not see."""
        ...

    def timeout(self, longest: float) -> float:
        """Return how many seconds the loop may wait for descriptors."""
        ...

    def note_ready(self, descriptor: int) -> None:
        """Note that the poller has found something to read."""

    def note_change(self, channel: bytes) -> None:
        """Make the next :meth:`read` check whether a channel is wanted."""

    def is_confirmed(self, channel: bytes) -> bool:
        """Whether Redis has confirmed that it sends this channel's events."""
        ...

    def read(self, wanted: Collection[bytes]) -> Sequence[Arrival]:
        """Subscribe to the wanted channels only, and return what has arrived."""
        ...

    def close(self) -> None:
        """Close the connections, or abandon the attempts to make them."""


Subscribe = Callable[[Outage, Poller, Waker], Subscription]
"""Makes the subscriptions of a loop; it does not connect yet."""
