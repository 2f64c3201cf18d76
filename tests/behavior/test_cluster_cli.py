"""`flask sse publish`, `listen` and `channels` on a real Redis Cluster."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import Result
from flask import Flask
from redis.crc import key_slot

from flask_sse import ServerSentEventsBlueprint
from tests.support.commands import flask_command
from tests.support.processes import LOOPBACK, free_port
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

MakeApp = Callable[..., Flask]


def _run(app: Flask, *arguments: str, group: str = "sse") -> Result:
    return app.test_cli_runner().invoke(args=[group, *arguments])


def _names(cluster: RedisCluster, prefix: str) -> list[str]:
    """Return a channel for each primary."""
    rows = [node.own_row() for node in cluster.primaries()]
    return [
        next(
            name
            for name in (f"{prefix}.{number}" for number in range(10_000))
            if row.has(key_slot(name.encode()))
        )
        for row in rows
    ]


@contextmanager
def _subscribed(cluster: RedisCluster, *names: str) -> Iterator[None]:
    """Subscribe to channels, each at its node."""
    with ExitStack() as stack:
        for name in names:
            pubsub = stack.enter_context(cluster.node_of(name.encode()).admin.pubsub())
            pubsub.ssubscribe(name)
            wait_until(partial(pubsub.get_message, timeout=0.1), "a confirmation")
        yield


def test_publish(make_app: MakeApp, redis_cluster: RedisCluster, channel: str) -> None:
    """An event is published at the node of its channel, with and without history."""
    app = make_app(REDIS_URL=redis_cluster.url, SSE_HISTORY={"*.logged": 10})
    for name in (*_names(redis_cluster, channel), f"{channel}.logged"):
        with _subscribed(redis_cluster, name):
            done = _run(app, "publish", "x", "--channel", name)
        assert done.exit_code == 0
        assert done.stderr == f"1 event published to {name}; 1 process is listening\n"


def test_listen(
    make_app: MakeApp, redis_cluster: RedisCluster, tmp_path: Path, channel: str
) -> None:
    """Channels on different nodes are listened to at once."""
    names = _names(redis_cluster, channel)
    app = make_app(REDIS_URL=redis_cluster.url)
    arguments = ("sse", "listen", *names, "--json", "--count", str(len(names)))
    with flask_command(tmp_path, *arguments, settings={"REDIS_URL": redis_cluster.url}) as command:
        assert {*command.wait_errors(3)} == {f"listening to {name}" for name in names}
        for name in names:
            assert _run(app, "publish", f"to {name}", "--channel", name).exit_code == 0
        assert command.wait_end() == 0
        events = [json.loads(line) for line in command.output]
    assert {event["channel"]: event["data"] for event in events} == {
        name: f"to {name}" for name in names
    }


def test_channels(make_app: MakeApp, redis_cluster: RedisCluster, channel: str) -> None:
    """The channels of all primaries are listed, the busiest first, and each only once."""
    one, two, three = _names(redis_cluster, channel)
    app = make_app(REDIS_URL=redis_cluster.url)
    with _subscribed(redis_cluster, one, two, two, three):
        assert _run(app, "channels", f"{channel}.*").stdout.splitlines() == [
            f"    2  {two}",
            *(f"    1  {name}" for name in sorted((one, three))),
        ]
        shown = _run(app, "channels", "--json", two).stdout
        assert json.loads(shown) == {"channel": two, "processes": 2}
    done = _run(app, "channels", f"{channel}.*")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no channel has a listener\n")


def test_channels_of_an_overridden_client(redis_cluster: RedisCluster, channel: str) -> None:
    """A blueprint may provide its own client for the cluster."""

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> Any:
            return client

    app = Flask("own", static_folder=None)
    app.register_blueprint(Own("own", __name__))
    host, port = redis_cluster.nodes[0].address
    names = _names(redis_cluster, channel)
    with redis.RedisCluster(host=host, port=port) as client, _subscribed(redis_cluster, *names):
        done = _run(app, "channels", f"{channel}.*", group="own")
        assert done.stdout.splitlines() == [f"    1  {name}" for name in sorted(names)]


def test_channels_of_a_node_that_does_not_answer(
    make_app: MakeApp, redis_cluster: RedisCluster, channel: str
) -> None:
    """The node is named, and the channels of the others are shown."""
    names = _names(redis_cluster, channel)
    last = redis_cluster.primaries()[-1]
    wrong = free_port()
    app = make_app(REDIS_URL=redis_cluster.url)
    with _subscribed(redis_cluster, *names), redis_cluster.announcing(last, wrong):
        done = _run(app, "channels", f"{channel}.*")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [f"    1  {name}" for name in sorted(names[:-1])]
    missing = f"Error: Redis: the channels of {LOOPBACK}:{wrong} are missing: "
    assert done.stderr.startswith(missing)


@pytest.mark.parametrize("arguments", [["publish", "x"], ["channels"]])
def test_no_cluster(make_app: MakeApp, shared_redis: RedisServer, arguments: list[str]) -> None:
    """The error says that no node answers, or that the URL is one for a single Redis."""
    nobody = f"{LOOPBACK}:{free_port()}"
    done = _run(make_app(REDIS_URL=f"redis+cluster://{nobody}"), *arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: Redis: no node of the Redis Cluster answers at {nobody}")
    url = shared_redis.url.replace("redis://", "redis+cluster://")
    done = _run(make_app(REDIS_URL=url), *arguments)
    assert done.exit_code == 1
    assert "begin REDIS_URL with redis:// (rediss:// for TLS)" in done.stderr


@pytest.mark.long
def test_listen_to_no_cluster(
    make_app: MakeApp, shared_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says which URL to use, before the command gives up."""
    url = shared_redis.url.replace("redis://", "redis+cluster://")
    done = _run(make_app(REDIS_URL=url), "listen")
    assert done.exit_code == 1
    assert "Error: Redis: Redis has not confirmed the subscription" in done.stderr
    assert "begin REDIS_URL with redis:// (rediss:// for TLS)" in caplog.text
