"""A thousand streams with different channels in one process."""

import random
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

CHANNELS: Final = 60
STREAMS: Final = 1000
ROUNDS: Final = 10


def _path(channels: Sequence[str], last_id: str = "") -> str:
    query = [("channel", channel) for channel in channels]
    return f"/streams?{urlencode([*query, ('last_event_id', last_id)])}"


def test_a_thousand_sets(shared_redis: RedisServer, channel: str, tmp_path: Path) -> None:
    """Each stream gets the events of its own channels, also those that it has missed."""
    chance = random.Random(17)
    names = [f"{channel}-{number}" for number in range(CHANNELS)]
    sets: set[tuple[str, ...]] = set()
    while len(sets) < STREAMS:
        sets.add(tuple(sorted(chance.sample(names, chance.randint(1, 6)))))
    chosen = [chance.sample(one, len(one)) for one in sorted(sets)]
    settings = {"REDIS_URL": shared_redis.url, "SSE_HISTORY": {f"{channel}-*": 1000}}
    received: list[list[str]] = [[] for _ in chosen]
    ids = [""] * STREAMS
    with servers.gunicorn(tmp_path, app="tests.apps.several:app", settings=settings) as site:
        for phase in range(2):
            with ExitStack() as stack:
                clients: list[StreamClient] = []
                for one, last_id in zip(chosen, ids, strict=True):
                    client = StreamClient(site.port, path=_path(one, last_id))
                    clients.append(stack.enter_context(client))
                    client.open().wait_events(1)
                for number in range(ROUNDS):
                    for name in names:
                        site.publish(f"{name} {2 * phase * ROUNDS + number}", name)
                # While they were away, there were as many events as now.
                wanted = ROUNDS * (1 + phase)
                for index, client in enumerate(clients):
                    events = client.wait_events(1 + wanted * len(chosen[index]))
                    assert [event.type for event in events].count("sse.open") == 1
                    received[index] += [one.data for one in events if one.type == "message"]
                    ids[index] = events[-1].id
            for number in range(ROUNDS):
                for name in names:
                    site.publish(f"{name} {(2 * phase + 1) * ROUNDS + number}", name)
        assert "Traceback" not in site.log()
    for channels, data in zip(chosen, received, strict=True):
        assert len(data) == 3 * ROUNDS * len(channels)
        for name in channels:
            numbers = [int(one.split()[1]) for one in data if one.split()[0] == name]
            assert numbers == [*range(3 * ROUNDS)]
