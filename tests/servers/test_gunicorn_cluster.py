"""A site under each of gunicorn's workers, on a Redis Cluster."""

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.cluster_channels import ODD_NAMES, channel_of_each
from tests.support.gathering import gather
from tests.support.parser import Event
from tests.support.processes import wait_gone
from tests.support.redis_cluster import RedisCluster
from tests.support.servers import Site
from tests.support.waiting import wait_until

HISTORY: Final = {"*-log": 5, "*-latest": "latest"}
LOG_SENT: Final = ("--access-logfile", "-", "--access-logformat", "%(m)s %(U)s?%(q)s sent %(B)s")


@pytest.fixture(scope="module", params=servers.MOST_USED)
def worker(request: pytest.FixtureRequest) -> str:
    """Return the name of each worker."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def site(
    worker: str, shared_cluster: RedisCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Return the site under each worker, which no test stops."""
    settings = {"REDIS_URL": shared_cluster.url, "SSE_HISTORY": HISTORY}
    folder = tmp_path_factory.mktemp("gunicorn-cluster")
    options = (*servers.WORKERS[worker], *LOG_SENT)
    with servers.gunicorn(folder, *options, settings=settings) as site:
        yield site


def returning(site: Site, channel: str, last_id: str) -> StreamClient:
    """Open a stream, as a browser does that has received an event."""
    return StreamClient(site.port, channel, headers=f"Last-Event-ID: {last_id}\r\n").open()


def has_logged(site: Site, line: str) -> bool:
    """Whether the server has logged a line."""
    return line in site.log()


def test_events_on_all_nodes(redis_cluster: RedisCluster, site: Site, channel: str) -> None:
    """Each stream is handed over, and gets the events of its channel."""
    channels = channel_of_each(redis_cluster, channel)
    clients = {name: StreamClient(site.port, name).open() for name in channels}
    for text in ("first", "last"):
        for name in channels:
            assert site.publish(f"{text} {name}", name) == 1
    for name, client in clients.items():
        wanted = [Event("message", f"{text} {name}", "") for text in ("first", "last")]
        assert client.wait_events(2) == wanted
        client.close()
        redis_cluster.wait_subscribers(0, name.encode())
        line = f"GET /stream?channel={name} sent 0"
        wait_until(partial(has_logged, site, line), "it was handed over")


def test_nothing_is_missed_after_the_first_byte(
    redis_cluster: RedisCluster, site: Site, channel: str
) -> None:
    """A client whose stream is open misses nothing, wherever its channel is."""
    for number in range(40):
        name = f"{channel}-{number}"
        with StreamClient(site.port, name).open() as client:
            assert redis_cluster.publish(name.encode(), b'{"data": "x"}') == 1
            assert client.wait_events(1)[0].data == "x"


def test_the_head_of_a_stream(redis_cluster: RedisCluster, site: Site, channel: str) -> None:
    """HEAD is answered with the headers of the stream, and subscribes to nothing."""
    with StreamClient(site.port, channel, method="HEAD").read_headers() as client:
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
    with StreamClient(site.port, f"{{{channel}}}").open():
        assert redis_cluster.subscribers(channel.encode()) == 0


@pytest.mark.parametrize("name", ODD_NAMES[1:-1], ids=range(len(ODD_NAMES) - 2))
def test_odd_names(redis_cluster: RedisCluster, site: Site, name: str) -> None:
    """The name of a channel may be any text."""
    assert redis_cluster.problem() is None
    with StreamClient(site.port, name).open() as client:
        assert site.publish("x", name) == 1
        assert client.wait_events(1)[0].data == "x"


def test_messages(redis_cluster: RedisCluster, site: Site, channel: str) -> None:
    """`messages()` yields what is published, in a thread of the worker."""
    assert site.get(f"/listen?channel={channel}") == "listening"
    redis_cluster.wait_subscribers(1, channel.encode())
    assert site.publish(f"hello {channel}", channel) == 1
    wait_until(lambda: f"heard hello {channel}" in site.log(), "heard")


def test_history(redis_cluster: RedisCluster, site: Site, channel: str) -> None:
    """Streams begin with a position, and go on after one, or with a reset."""
    for name in channel_of_each(redis_cluster, channel):
        log = f"{{{name}}}-log"
        with StreamClient(site.port, log).open() as client:
            [opening] = client.wait_events(1)
            assert opening.type == "sse.open"
            site.publish("0", log)
            assert [event.data for event in client.wait_events(2)[1:]] == ["0"]
        site.publish("1", log)
        with returning(site, log, client.events[-1].id) as client:
            first, second = client.wait_events(2)
            assert json.loads(first.data) == {"channel": log, "recovered": True}
            assert second.data == "1"
        for number in range(2, 7):
            site.publish(str(number), log)
        with returning(site, log, client.events[-1].id) as client:
            assert [event.data for event in client.wait_events(6)[1:]] == [*"23456"]
        with returning(site, log, opening.id) as client:
            reset = client.wait_events(2)[1]
            assert reset.type == "sse.reset"
            site.publish("7", log)
            assert client.wait_events(3)[2].data == "7"


def test_the_latest_event(redis_cluster: RedisCluster, site: Site, channel: str) -> None:
    """With `"latest"`, a new client gets the newest event at once."""
    for name in channel_of_each(redis_cluster, channel):
        latest = f"{{{name}}}-latest"
        for data in ("old", "new"):
            site.publish(data, latest)
        with StreamClient(site.port, latest).open() as client:
            assert [event.data for event in client.wait_events(2)[1:]] == ["new"]


def test_two_workers(redis_cluster: RedisCluster, worker: str, tmp_path: Path) -> None:
    """Each has its own subscriptions; streams are kept alive, and end with their last chunk."""
    settings = {"REDIS_URL": redis_cluster.url, "SSE_HISTORY": HISTORY, "SSE_KEEPALIVE": 0.5}
    options = (*servers.WORKERS[worker], "--workers", "2")
    names = [*channel_of_each(redis_cluster, "two"), "two-log"]
    with servers.gunicorn(tmp_path, *options, settings=settings) as site:
        clients: dict[str, list[StreamClient]] = {name: [] for name in names}

        def is_in_both(name: str) -> bool:
            # The kernel chooses the worker of each connection.
            clients[name].append(StreamClient(site.port, name).open())
            return redis_cluster.subscribers(name.encode()) == 2

        for name in names:
            wait_until(partial(is_in_both, name), "both have streams")
            assert site.publish(f"to {name}", name) == 2
        opened = [client for name in names for client in clients[name]]
        gather(opened, lambda client: client.parser.comments > 2 and bool(client.events))
        for name in names:
            for client in clients[name]:
                published = [event.data for event in client.events if event.type == "message"]
                assert published == [f"to {name}"]
        processes = site.process.children()
        site.process.send(signal.SIGTERM)
        gather(opened, lambda client: client.complete)
        for process in processes:
            wait_gone(process)
        for client in opened:
            client.close()
        assert not any(word in site.log() for word in ("Traceback", "ERROR", "timeout"))
