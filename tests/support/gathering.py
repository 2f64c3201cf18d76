"""Many clients of one server, which one loop reads."""

import selectors
import time
from collections.abc import Callable, Sequence

from tests.support.client import StreamClient
from tests.support.waiting import PATIENCE


def gather(
    clients: Sequence[StreamClient], done: Callable[[StreamClient], bool], seconds: float = PATIENCE
) -> None:
    """Read all clients until each one is done."""
    deadline = time.monotonic() + seconds
    waiting = {client for client in clients if not done(client)}
    with selectors.DefaultSelector() as selector:
        for client in waiting:
            selector.register(client.socket, selectors.EVENT_READ, client)
        while waiting:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(waiting)} of {len(clients)} clients still wait")
            for key, _ in selector.select(0.5):
                client = key.data
                client.receive()
                if done(client) or client.ended:
                    assert done(client), (
                        f"a stream has ended too early: {len(waiting)} wait, {client.describe()}"
                    )
                    waiting.discard(client)
                    selector.unregister(client.socket)
