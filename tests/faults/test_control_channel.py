"""A gap in the control channel: the streams of clients with a name end, to be checked again."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from flask_sse._redis.slots import slot
from tests.support import servers
from tests.support.client import StreamClient
from tests.support.gathering import gather
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import wait_until

APP: Final = "tests.apps.named:app"
CONTROL: Final = b"flask-sse:control"
NUMBER: Final = 20

# The streams end over ten seconds.
pytestmark = pytest.mark.long


@pytest.fixture
def site(redis_server: RedisServer, tmp_path: Path) -> Iterator[Site]:
    """Return the site with a Redis of its own."""
    with servers.gunicorn(tmp_path, app=APP, settings={"REDIS_URL": redis_server.url}) as site:
        yield site


@pytest.fixture
def cluster_site(redis_cluster: RedisCluster, tmp_path: Path) -> Iterator[Site]:
    """Return the site with a cluster."""
    with servers.gunicorn(tmp_path, app=APP, settings={"REDIS_URL": redis_cluster.url}) as site:
        yield site


def check_gap(site: Site, channel: str, make_gap: Callable[[], object]) -> None:
    """Check that a gap ends the streams of named clients, and no others."""
    with ExitStack() as stack:

        def open_path(path: str) -> StreamClient:
            return stack.enter_context(StreamClient(site.port, path=path)).open()

        named = [open_path(f"/own?channel={channel}&client=user-{n}") for n in range(NUMBER)]
        others = [open_path(f"/{view}?channel={channel}") for view in ("stream", "own")]
        make_gap()
        gather(named, lambda client: client.ended)
        assert all(client.complete and not client.was_reset for client in named)
        wait_until(lambda: site.log().count('"reason": "redis"') == NUMBER, "signals are sent")
        # A client that comes back can be disconnected again, and the others have noticed nothing.
        again = open_path(f"/own?channel={channel}&client=alice")
        assert site.publish("hello", channel) == 1
        for client in (again, *others):
            assert client.wait_events(1)[0].data == "hello"
        assert int(site.get("/disconnect?client=alice")) == 1
        again.wait_end()


def test_the_connection_is_killed(site: Site, redis_server: RedisServer, channel: str) -> None:
    """A revocation may have slipped by before the process has subscribed again."""
    check_gap(site, channel, redis_server.kill_pubsub)


def test_redis_is_restarted(site: Site, redis_server: RedisServer, channel: str) -> None:
    """Streams end when Redis is back, and not before, when no client could come back."""

    def restart() -> None:
        redis_server.stop()
        wait_until(lambda: "Redis is unavailable" in site.log(), "the loss is noticed")
        redis_server.start()

    check_gap(site, channel, restart)


def test_a_cluster_replaces_the_primary(
    cluster_site: Site, redis_cluster: RedisCluster, channel: str
) -> None:
    """Streams end that are on other nodes, too."""
    check_gap(cluster_site, channel, lambda: redis_cluster.failover(redis_cluster.node_of(CONTROL)))


def test_a_cluster_moves_the_slot(
    cluster_site: Site, redis_cluster: RedisCluster, channel: str
) -> None:
    """The channel is subscribed at the other node, with a gap."""

    def move() -> None:
        owner = redis_cluster.node_of(CONTROL)
        other = next(node for node in redis_cluster.primaries() if node is not owner)
        redis_cluster.move_slot(slot(CONTROL), other)

    check_gap(cluster_site, channel, move)
