"""Clients for a Redis Cluster that an application provides, and clients that don't suit one."""

import gc
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final

import pytest
import redis
import redis.asyncio
from flask import Flask, g
from redis.cluster import RedisCluster
from werkzeug.local import LocalProxy

from flask_sse import ServerSentEventsBlueprint, history, sse
from flask_sse.testing import Stream, open_stream
from tests.support.cluster_channels import channel_of_each
from tests.support.redis_cluster import RedisCluster as Lab
from tests.support.waiting import wait_until

MakeApp = Callable[..., Flask]
NewClient = Callable[[], Any]

OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {},
    "decoding": {"decode_responses": True},
    "utf-16": {"encoding": "utf-16"},
    "replicas": {"read_from_replicas": True},
    "RESP3": {"protocol": 3},
}


_DEPRECATED: Final = pytest.mark.filterwarnings("ignore:.*'read_from_replicas'")
"""Later versions of redis-py have another name for it."""


def own_app(new_client: NewClient, **config: object) -> tuple[Flask, ServerSentEventsBlueprint]:
    """Return an application without a URL, whose `redis` is overridden."""

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> Any:
            return new_client()

    own = Own("own", __name__)
    own.add_url_rule("", endpoint="stream", view_func=own.stream)
    app = Flask("tests")
    app.testing = True
    app.config.update(config)
    app.register_blueprint(own, url_prefix="/stream")
    return app, own


def new_client(lab: Lab, **options: Any) -> RedisCluster:
    """Return a client that knows one node."""
    host, port = lab.nodes[0].address
    return RedisCluster(host=host, port=port, **options)


@contextmanager
def opened(app: Flask, channels: Sequence[str]) -> Iterator[dict[str, Stream]]:
    """Open a stream of each channel."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(open_stream(app, name)) for name in channels}


def subscribing_names(lab: Lab) -> list[object]:
    """Return the names of the connections that subscribe at any primary."""
    return [
        client["name"] for node in lab.primaries() for client in node.admin.client_list("pubsub")
    ]


@_DEPRECATED
def test_the_options_of_a_client(redis_cluster: Lab, channel: str, kind: str) -> None:
    """It publishes, streams and generates messages on all nodes, whatever its options are."""
    channels = channel_of_each(redis_cluster, channel)
    with new_client(redis_cluster, **OPTIONS[kind]) as client:
        app, own = own_app(lambda: client)
        with app.app_context(), opened(app, channels) as streams:
            for name, stream in streams.items():
                assert own.publish({"n": name}, channel=name) == 1
                assert stream.get().json == {"n": name}


@_DEPRECATED
def test_history_with_a_client(redis_cluster: Lab, channel: str, kind: str) -> None:
    """Its cluster has the logs, for streams and for `history`."""
    channels = channel_of_each(redis_cluster, channel)
    with new_client(redis_cluster, **OPTIONS[kind]) as client:
        app, own = own_app(lambda: client, SSE_HISTORY=10)
        with app.app_context():
            for name in channels:
                start = history.position(name, blueprint=own)
                own.publish("first", channel=name)
                with open_stream(app, name, last_event_id=start) as stream:
                    assert stream.get().json == {"channel": name, "recovered": True}
                    own.publish("second", channel=name)
                    assert [stream.get().data for _ in range(2)] == ["first", "second"]
                with closing(history.messages(name, start, blueprint=own)) as messages:
                    found = [next(messages) for _ in range(2)]
                assert [message.data for message in found] == ["first", "second"]
                assert found[-1].id == history.position(name, blueprint=own)


@pytest.fixture(params=OPTIONS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return the name of each set of options."""
    name: str = request.param
    return name


def test_a_new_cluster_client_each_time(redis_cluster: Lab, channel: str) -> None:
    """Streams share one connection to a node even so, and all of the clients are released."""
    made: list[weakref.ref[RedisCluster]] = []

    def make() -> RedisCluster:
        client = new_client(redis_cluster)
        made.append(weakref.ref(client))
        return client

    app, own = own_app(make)
    with app.app_context(), opened(app, [channel, f"{{{channel}}}"]) as streams:
        for name, stream in streams.items():
            assert own.publish("x", channel=name) == 1
            assert stream.get().data == "x"
        assert len(subscribing_names(redis_cluster)) == 1
    assert len(made) == 4
    gc.collect()
    assert [client() for client in made] == [None] * 4


def test_a_proxy_for_a_cluster_client(redis_cluster: Lab, channel: str) -> None:
    """The client may be one of the request, for which the application has a proxy."""
    with new_client(redis_cluster) as client:
        app, own = own_app(lambda: LocalProxy(lambda: g.redis), SSE_HISTORY={"*-log": 5})

        @app.before_request
        def choose_redis() -> None:
            g.redis = client

        with app.app_context(), opened(app, [channel, f"{channel}-log"]) as streams:
            g.redis = client
            for name, stream in streams.items():
                assert own.publish("x", channel=name) == 1
                assert [stream.get().data for _ in range(2 if name != channel else 1)][-1] == "x"


class Wrapper:
    """Delegates to a client, as wrappers that measure or trace do."""

    def __init__(self, client: RedisCluster) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.mark.parametrize("kept", [0, 5], ids=["off", "history"])
def test_a_wrapper_of_a_cluster_client(redis_cluster: Lab, channel: str, kept: int) -> None:
    """It is used like the client, and reaches the streams that have the URL of the cluster."""
    with new_client(redis_cluster) as client:
        app, own = own_app(lambda: Wrapper(client), SSE_HISTORY=kept)
        with app.app_context(), open_stream(app, channel) as stream:
            assert own.publish("x", channel=channel) == 1
            assert [stream.get().data for _ in range(2 if kept else 1)][-1] == "x"


def test_a_cluster_client_with_a_function_for_connections(redis_cluster: Lab, channel: str) -> None:
    """The function is called for the connections of streams, too."""

    def name_it(connection: Any) -> None:
        connection.send_command("CLIENT", "SETNAME", "named")
        assert connection.read_response() in (b"OK", "OK")

    with new_client(redis_cluster, redis_connect_func=name_it) as client:
        app, own = own_app(lambda: client)
        with app.app_context(), open_stream(app, channel) as stream:
            assert own.publish("x", channel=channel) == 1
            assert stream.get().data == "x"
            assert subscribing_names(redis_cluster) == ["named"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda client: client.pipeline(), "not a pipeline"),
        (lambda client: [client], r"such as redis\.StrictRedis, not of the type list"),
    ],
    ids=["pipeline", "list"],
)
def test_what_does_not_publish_on_a_cluster(
    redis_cluster: Lab, make: Callable[[RedisCluster], Any], text: str
) -> None:
    """The error says what is needed."""
    with new_client(redis_cluster) as client:
        app, own = own_app(lambda: make(client))
        with app.app_context(), pytest.raises(TypeError, match=text):
            own.publish("x")


def test_what_names_no_cluster(redis_cluster: Lab) -> None:
    """For streams, the error names both kinds of clients, and tells an asyncio client apart."""
    host, port = redis_cluster.nodes[0].address
    app, own = own_app(lambda: redis.asyncio.RedisCluster(host=host, port=port))
    text = r"be a redis\.cluster\.RedisCluster, not be of the type redis\.asyncio\.cluster\.RedisC"
    with app.test_request_context("/stream"):
        for attempt in (own.messages, own.stream):
            with pytest.raises(TypeError, match=text):
                attempt()


def test_streams_of_a_cluster_with_the_url_of_a_node(
    make_app: MakeApp, redis_cluster: Lab, channel: str
) -> None:
    """Without history, any node is enough for an application that has no other publishers."""
    app = make_app(REDIS_URL=redis_cluster.nodes[0].url)
    channels = channel_of_each(redis_cluster, channel)
    with app.app_context(), opened(app, channels) as streams:
        for name, stream in streams.items():
            assert sse.publish("x", channel=name) == 1
            assert stream.get().data == "x"


def test_history_of_a_cluster_with_the_url_of_a_node(
    make_app: MakeApp,
    redis_cluster: Lab,
    channel: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A channel of another node is refused everywhere, and each error names the URL."""
    monkeypatch.setattr("flask_sse._streaming.event_stream.CONFIRM_WITHIN", 0.2)
    monkeypatch.setattr("flask_sse._streaming.messages.CONFIRM_WITHIN", 0.2)
    node = redis_cluster.nodes[0]
    app = make_app(REDIS_URL=node.url, SSE_HISTORY=10)
    channels = channel_of_each(redis_cluster, channel)
    name = next(name for name in channels if redis_cluster.node_of(name.encode()) is not node)
    port = redis_cluster.node_of(name.encode()).port
    text = f"begin REDIS_URL with redis+cluster://127.0.0.1:{port} "
    with app.app_context():
        for attempt in (
            lambda: sse.publish("x", channel=name),
            lambda: history.position(name),
        ):
            with pytest.raises(redis.ResponseError, match=re.escape(text)):
                attempt()
        with app.test_client().get(f"/stream?channel={name}") as response:
            assert response.get_data().startswith(b"retry:")
        wait_until(lambda: "history in Redis can't be read" in caplog.text, "the log says so")
        assert text in caplog.text
