"""Redis with sentinels, in this process and with any installed version of redis-py."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from flask import Flask

from flask_sse import sse
from tests.support.listening import listening
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

MakeApp = Callable[..., Flask]


class Trio(NamedTuple):
    """A primary, its replica, and the sentinel that watches them under the name ``demo``."""

    primary: RedisServer
    replica: RedisServer
    sentinel: RedisServer

    @property
    def url(self) -> str:
        """The URL for ``REDIS_URL``."""
        return f"redis+sentinel://{LOOPBACK}:{self.sentinel.port}/demo/0"


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    """Return a primary, a replica and a sentinel that knows both."""
    primary = RedisServer(tmp_path)
    primary.options["repl-diskless-sync-delay"] = "0"
    replica = RedisServer(tmp_path, replicaof=f"{LOOPBACK} {primary.port}")
    trio = Trio(primary, replica, RedisServer(tmp_path))
    try:
        primary.start()
        replica.start()
        trio.sentinel.start_sentinel("demo", primary)
        wait_until(lambda: trio.sentinel.admin.sentinel_slaves("demo"), "the replica is known", 20)
        yield trio
    finally:
        for server in reversed(trio):
            server.stop()


def test_publish_finds_the_primary_and_follows_it(make_app: MakeApp, trio: Trio) -> None:
    """Events go to the primary that the sentinel names, and to the next one after a failover."""
    with make_app(REDIS_URL=trio.url).app_context():
        with listening(trio.primary.admin) as listener:
            for data in ("first", "second"):
                assert sse.publish(data) == 1
            assert [payload["data"] for payload in listener.payloads(2)] == ["first", "second"]
        assert sse.redis.set("kept", "by the primary")
        assert sse.redis.wait(1, 5000) == 1
        trio.primary.stop()
        wait_until(_can_publish, "published through the new primary", 30)
        with listening(trio.replica.admin) as listener:
            assert sse.publish("third") == 1
            assert [payload["data"] for payload in listener.payloads(1)] == ["third"]
        assert sse.redis.get("kept") == b"by the primary"


def _can_publish() -> bool:
    try:
        sse.publish("meanwhile")
    except redis.ConnectionError:
        return False
    return True
