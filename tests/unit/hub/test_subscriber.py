"""What a listener that another thread reads tells the hub."""

from collections.abc import Callable

import pytest

from flask_sse._hub.batch import Batch
from flask_sse._hub.subscriber import Follower, Subscriber

BATCH = Batch((), b"data:x\n\n")


def test_a_follower_that_is_behind_tells_when_it_is_drained() -> None:
    """It does so once its client has taken the last batch, and only while it is behind."""
    told: list[bool] = []
    follower = Follower(limit=1)
    follower.when_drained(lambda: told.append(True))
    assert follower.offer(BATCH)
    assert follower.offer(BATCH)
    assert follower.is_behind
    assert follower.take(timeout=0) == [BATCH]
    assert not told, "the server may still be sending it"
    assert follower.take(timeout=0) == []
    assert told == [True]
    follower.is_behind = False
    assert follower.take(timeout=0) == []
    assert told == [True]


def test_a_subscriber_without_history_tells_nothing() -> None:
    """Nobody waits until it has taken everything: it gets each batch, or overflows."""
    told: list[bool] = []
    subscriber = Subscriber(limit=1)
    subscriber.when_drained(lambda: told.append(True))
    assert subscriber.offer(BATCH)
    for _ in range(3):
        subscriber.take(timeout=0)
    assert not told


@pytest.mark.parametrize("make", [Subscriber, Follower])
def test_the_hub_owns_nothing_of_it(make: Callable[[int], Subscriber]) -> None:
    """It has no descriptor for the hub to close, and its end never has to be waited for."""
    subscriber = make(1)
    subscriber.offer(BATCH)
    assert subscriber.descriptor == -1
    assert subscriber.end("stop")
    subscriber.close()
    assert subscriber.take(timeout=0) == [BATCH]
    assert subscriber.take(timeout=0) is None
