"""Options of the URL, or of an overridden client, that change replies or repeat commands."""

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import redis
from flask import Flask
from redis.backoff import NoBackoff
from redis.retry import Retry

from flask_sse import ServerSentEventsBlueprint, history, sse
from flask_sse.testing import open_stream
from tests.support.redis_server import RedisServer

MakeApp = Callable[..., Flask]

OPTIONS = [
    "decode_responses=true",
    # redis-py takes each text for true here.
    "decode_responses=False",
    "protocol=3",
    "encoding=utf-16",
    "encoding=ascii&encoding_errors=strict",
    "health_check_interval=1",
    "retry_on_timeout=true",
    "retry_on_error=x",
    "client_name=mine",
    "socket_timeout=2.5&socket_connect_timeout=2.5&socket_keepalive=true",
]


def check_all(app: Flask, blueprint: ServerSentEventsBlueprint, channel: str, url: str) -> None:
    """Publish and receive on a channel, and on one with history."""
    with app.app_context():
        for name in (channel, f"log-{channel}"):
            with open_stream(app, url=f"{url}?channel={name}") as stream:
                blueprint.publish("ä", channel=name)
                found = [stream.get(timeout=30) for _ in range(2 if name != channel else 1)]
                assert found[-1].data == "ä"
        start = history.position(name, blueprint=blueprint)
        blueprint.publish("one more", channel=name)
        with closing(history.messages(name, after=start, blueprint=blueprint)) as messages:
            assert next(messages).data == "one more"


@pytest.mark.parametrize("options", OPTIONS)
def test_options_of_the_url(
    make_app: MakeApp, shared_redis: RedisServer, channel: str, options: str
) -> None:
    """None of them reaches the connections that publish, subscribe and read logs."""
    app = make_app(REDIS_URL=f"{shared_redis.url}?{options}", SSE_HISTORY={"log-*": 100})
    check_all(app, sse, channel, "/stream")


def test_the_applications_client_keeps_them(make_app: MakeApp, shared_redis: RedisServer) -> None:
    """`sse.redis` is what redis-py makes of the URL."""
    url = f"{shared_redis.url}?decode_responses=true&health_check_interval=7&client_name=mine"
    with make_app(REDIS_URL=url).app_context():
        assert sse.redis.echo("text") == "text"
        known = sse.redis.connection_pool.connection_kwargs
        assert (known["health_check_interval"], known["client_name"]) == (7, "mine")


@pytest.mark.parametrize("options", OPTIONS[:4])
def test_the_doctor(make_app: MakeApp, shared_redis: RedisServer, options: str) -> None:
    """Nor do they reach the connections of `flask sse doctor`."""
    app = make_app(REDIS_URL=f"{shared_redis.url}?{options}", SSE_HISTORY=10)
    done = app.test_cli_runner().invoke(args=["sse", "doctor", "--json", "--patience", "30"])
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    found = {finding["check"]: finding["level"] for finding in findings}
    assert {found[check] for check in ("redis", "subscribe", "publish", "history")} == {"ok"}
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    "known",
    [
        {"decode_responses": True},
        {"encoding": "utf-16"},
        {"decode_responses": True, "protocol": 3},
        {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": None},
    ],
)
def test_options_of_an_overridden_client(
    make_app: MakeApp, shared_redis: RedisServer, channel: str, known: dict[str, Any]
) -> None:
    """A client that decodes replies publishes, and finds positions."""
    client = redis.StrictRedis(port=shared_redis.port, **known)

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return client

    own = Own("own", __name__)
    own.add_url_rule("", endpoint="stream", view_func=own.stream)
    app = make_app(SSE_HISTORY={"log-*": 100})
    app.register_blueprint(own, url_prefix="/own")
    check_all(app, own, channel, "/own")
    client.close()
