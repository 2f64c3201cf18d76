"""The stand-in for a managed service is as strict as its docstring says."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from tests.support.cluster_state import SLOTS
from tests.support.processes import LOOPBACK
from tests.support.strict_proxy import RequestReader, StrictProxy, strict_proxy
from tests.support.waiting import wait_until

SCRIPT: Final = "redis.call('APPEND', KEYS[1], 'x') return redis.call('SPUBLISH', ARGV[1], 'x')"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StrictProxy]:
    """Return the proxy, in front of a node of its own."""
    with strict_proxy(tmp_path_factory.mktemp("strict") / "node", forgets_every=3) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: StrictProxy) -> Iterator[redis.RedisCluster]:
    """Return a cluster's client, which only gets the proxy's address."""
    with redis.RedisCluster.from_url(proxy.url.replace("redis+cluster", "redis")) as client:
        yield client


@pytest.fixture
def plain(proxy: StrictProxy) -> Iterator[redis.Redis]:
    """Return a client that does nothing of its own accord."""
    retry = Retry(NoBackoff(), 0)
    with redis.Redis(host=LOOPBACK, port=proxy.port, retry=retry) as plain:
        yield plain


def test_one_endpoint(proxy: StrictProxy, client: redis.RedisCluster, plain: redis.Redis) -> None:
    """It says that it is a cluster with one node, which has its own address."""
    assert [node.port for node in client.get_nodes()] == [proxy.port]
    assert plain.info("cluster")["cluster_enabled"] == 1
    nodes: Any = plain.execute_command("CLUSTER", "NODES")
    assert f"127.0.0.1:{proxy.port}@".encode() in nodes
    assert f" 0-{SLOTS - 1}".encode() in nodes
    for answer in ("SLOTS", "SHARDS"):
        shown = repr(plain.execute_command("CLUSTER", answer))
        assert str(proxy.port) in shown
        assert str(proxy.node.port) not in shown


def test_publish(plain: redis.Redis) -> None:
    """PUBLISH reaches the subscribers of shards, and no others."""
    with plain.pubsub() as sharded, plain.pubsub() as classic:
        for pubsub, subscribe in ((sharded, sharded.ssubscribe), (classic, classic.subscribe)):
            subscribe("news")
            _wait_message(pubsub)
        assert plain.publish("news", "x") == 1
        assert _wait_message(sharded)["data"] == b"x"
        assert classic.get_message(timeout=0) is None


def test_slots_of_scripts(proxy: StrictProxy, plain: redis.Redis) -> None:
    """A script whose channel has another slot than its key is refused, in the order of answers."""
    proxy.refused.clear()
    with plain.pipeline(transaction=False) as pipeline:
        pipeline.set("{news}", "")
        pipeline.eval(SCRIPT, 1, "{news}", "news")
        pipeline.eval(SCRIPT, 1, "{news}", "sport")
        pipeline.get("{news}")
        answers = pipeline.execute(raise_on_error=False)
    assert answers[:2] + answers[3:] == [True, 0, b"x"]
    assert isinstance(answers[2], redis.ResponseError)
    assert "one slot" in str(answers[2])
    assert [request[-1] for request in proxy.refused] == [b"sport"]


def test_scripts_that_do_not_publish(proxy: StrictProxy, plain: redis.Redis) -> None:
    """Their arguments are no channels."""
    proxy.refused.clear()
    script = "return ARGV[1]"
    assert plain.eval(script, 1, "{news}", "sport") == b"sport"
    digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    with pytest.raises(redis.ResponseError, match="one slot"):
        plain.evalsha(plain.script_load(SCRIPT), 1, "{news}", "sport")
    assert plain.evalsha(digest, 1, "{news}", "sport") == b"sport"
    assert len(proxy.refused) == 1


def test_forgotten_scripts(proxy: StrictProxy, plain: redis.Redis) -> None:
    """Every third EVALSHA is answered with NOSCRIPT, and does nothing."""
    digest = plain.script_load(SCRIPT)
    plain.delete("{news}")
    before, refusals = proxy.forgotten, 0
    for _ in range(9):
        try:
            plain.evalsha(digest, 1, "{news}", "news")
        except NoScriptError:
            refusals += 1
    assert refusals == proxy.forgotten - before == 3
    assert plain.strlen("{news}") == 6


def test_a_move(proxy: StrictProxy, client: redis.RedisCluster, plain: redis.Redis) -> None:
    """All connections end; then the address answers again, and knows no script."""
    digest = plain.script_load(SCRIPT)
    with plain.pubsub() as pubsub:
        pubsub.ssubscribe("news")
        _wait_message(pubsub)
        with proxy.moving():
            wait_until(
                lambda: proxy.node.admin.execute_command("PUBSUB", "SHARDCHANNELS") == [],
                "the subscription has ended",
            )
            with pytest.raises(redis.ConnectionError):
                plain.ping()
    assert plain.script_exists(digest) == [False]
    proxy.move()
    assert client.set("news", "x")


def test_requests_in_pieces() -> None:
    """Requests are parsed at any boundary, with any bytes in them."""
    requests = [[b"PING"], [b"SET", b"\r\n*1\r\n", b""], [b"GET", bytes(range(256))]]
    data = b"".join(
        b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        for parts in requests
    )
    for size in range(1, len(data) + 1):
        reader = RequestReader()
        pieces = (data[start : start + size] for start in range(0, len(data), size))
        assert [request for piece in pieces for request in reader.feed(piece)] == requests


def _wait_message(pubsub: Any) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def comes() -> bool:
        message = pubsub.get_message(timeout=0.05)
        if message is not None:
            found.append(message)
        return bool(found)

    wait_until(comes, "a message")
    return found[0]
