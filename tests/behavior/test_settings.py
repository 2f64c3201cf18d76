"""The settings: each wrong value is refused by name, before anything is sent."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fakeredis
import pytest
import redis
from flask import Flask

from flask_sse import ServerSentEventsBlueprint, sse
from flask_sse._settings import KEYS, Settings
from tests.support.parser import Event
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE
from tests.support.wsgi import open_stream, pieces_of

MakeApp = Callable[..., Flask]

WRONG: list[tuple[str, object, type[Exception], str]] = [
    ("SSE_REDIS_URL", 6379, TypeError, r"SSE_REDIS_URL must be a str .* type int"),
    ("REDIS_URL", b"redis://x", TypeError, r"REDIS_URL must be a str .* type bytes"),
    ("REDIS_URL", "localhost:6379", ValueError, r"REDIS_URL must begin with one of redis://, .*"),
    ("REDIS_URL", "http://localhost", ValueError, r"REDIS_URL must begin with .* not with 'http'"),
    (
        "REDIS_URL",
        "redis://localhost:x",
        ValueError,
        r"SSE_REDIS_URL or REDIS_URL can't be used: the port, after the host,",
    ),
    (
        "REDIS_URL",
        "redis://h?socket_timeout=x",
        ValueError,
        r"socket_timeout must be .* seconds above 0, not 'x'",
    ),
    (
        "REDIS_URL",
        "redis://h?socket_timeout=0",
        ValueError,
        r"socket_timeout must be .* seconds above 0, not '0'",
    ),
    (
        "REDIS_URL",
        "redis://h?socket_timeout=nan",
        ValueError,
        r"socket_timeout must be .* seconds above 0, not 'nan'",
    ),
    (
        "REDIS_URL",
        "redis://h?socket_timeot=3",
        ValueError,
        r"option socket_timeot=3; did you mean socket_timeout\?",
    ),
    (
        "REDIS_URL",
        "redis://h?max_connections=-3",
        ValueError,
        r"max_connections must be a whole number, not '-3'",
    ),
    (
        "REDIS_URL",
        "redis://h?socket_keepalive=maybe",
        ValueError,
        r"socket_keepalive must be true or false, not 'maybe'",
    ),
    (
        "REDIS_URL",
        "redis://h?health_check_interval=x",
        ValueError,
        r"does not accept the option health_check_interval=x",
    ),
    (
        "REDIS_URL",
        "redis://h?ssl=True",
        ValueError,
        r"ssl=True is not an option of redis://; begin .* with rediss://",
    ),
    (
        "REDIS_URL",
        "rediss://h?ssl=True",
        ValueError,
        r"ssl=True is not an option of rediss://; leave it out",
    ),
    (
        "REDIS_URL",
        "redis://h?ssl_cert_reqs=none",
        ValueError,
        r"ssl_cert_reqs is for TLS; begin the URL with rediss",
    ),
    (
        "REDIS_URL",
        "rediss://h?ssl_cert_reqs=foo",
        ValueError,
        r"ssl_cert_reqs must be none, optional or required, not 'foo'",
    ),
    (
        "REDIS_URL",
        "rediss://h?nonsense=1&ssl_password=x",
        ValueError,
        r"that redis-py knows each option and accepts its value",
    ),
    (
        "REDIS_URL",
        "redis+cluster://h/1",
        ValueError,
        r"REDIS_URL can't be used: a cluster has only database 0, not '1'",
    ),
    (
        "REDIS_URL",
        "redis+cluster://h?socket_timeoutt=1",
        ValueError,
        r"does not accept the option socket_timeoutt=1; did you mean socket_timeout\?",
    ),
    (
        "REDIS_URL",
        "redis+sentinel://h/s?nonsense=1",
        ValueError,
        r"does not accept the option nonsense=1",
    ),
    (
        "REDIS_URL",
        "redis+sentinel://h/s?sentinel_nonsense=1",
        ValueError,
        r"the option sentinel_nonsense=1",
    ),
    (
        "REDIS_URL",
        "redis+sentinel://h/s?socket_timeout=x",
        ValueError,
        r"socket_timeout must be .* not 'x'",
    ),
    (
        "REDIS_URL",
        "redis+sentinel://h/s?sentinel_socket_timeout=x",
        ValueError,
        r"sentinel_socket_timeout must be .* not 'x'",
    ),
    (
        "REDIS_URL",
        "redis+sentinel://h/s?ssl=maybe",
        ValueError,
        r"ssl must be true or false, not 'maybe'",
    ),
    (
        "REDIS_URL",
        "redis+sentinel://h/s?sentinel_ssl=maybe",
        ValueError,
        r"sentinel_ssl must be true or false, not",
    ),
    (
        "REDIS_URL",
        "redis+sentinel://h/s?sentinel_ssl_cert_reqs=none",
        ValueError,
        r"sentinel_ssl_cert_reqs is for TLS",
    ),
    (
        "REDIS_URL",
        "rediss+sentinel://h/s?ssl=no",
        ValueError,
        r"ssl is off, but rediss\+sentinel:// means TLS",
    ),
    (
        "REDIS_URL",
        "redis://h/notanumber",
        ValueError,
        r"the database, .* must be a number, not 'notanumber'",
    ),
    ("REDIS_URL", "redis://h/1/2", ValueError, r"the database, .* must be a number, not '1/2'"),
    ("REDIS_URL", "unix:///redis.sock?db=x", ValueError, r"db must be a whole number, not 'x'"),
    (
        "REDIS_URL",
        "redis+sentinel://h:1",
        ValueError,
        r"REDIS_URL can't be used: it names no service",
    ),
    (
        "REDIS_URL",
        "redis+sentinel://h:1/s/x",
        ValueError,
        r"the database, .* must be a number, not 'x'",
    ),
    (
        "REDIS_URL",
        "redis+sentinel:///s",
        ValueError,
        r"REDIS_URL can't be used: it names no sentinel",
    ),
    (
        "REDIS_URL",
        "redis+sentinel://h:x/s",
        ValueError,
        r"the port, after the host, must be a number",
    ),
    ("SSE_KEEPALIVE", "15", TypeError, r"SSE_KEEPALIVE must be a number of seconds.* not '15'"),
    ("SSE_KEEPALIVE", True, TypeError, r"SSE_KEEPALIVE must be a number of seconds.* not True"),
    ("SSE_KEEPALIVE", -1, ValueError, r"SSE_KEEPALIVE must be from 0 to 86400 seconds, not -1"),
    ("SSE_KEEPALIVE", float("nan"), ValueError, r"SSE_KEEPALIVE must be from 0 .* not nan"),
    ("SSE_KEEPALIVE", float("inf"), ValueError, r"SSE_KEEPALIVE must be from 0 .* not inf"),
    ("SSE_KEEPALIVE", 10**6, ValueError, r"SSE_KEEPALIVE must be from 0 .* not 1000000"),
    ("SSE_RETRY", "5", TypeError, r"SSE_RETRY must be an int \(milliseconds\) or None, not '5'"),
    ("SSE_RETRY", 1.5, TypeError, r"SSE_RETRY must be an int .* not 1.5"),
    ("SSE_RETRY", False, TypeError, r"SSE_RETRY must be an int .* not False"),
    ("SSE_RETRY", -1, ValueError, r"SSE_RETRY must be 0 milliseconds or more or None, not -1"),
    ("SSE_MAX_PENDING", None, TypeError, r"SSE_MAX_PENDING must be an int \(bytes\), not None"),
    ("SSE_MAX_PENDING", "1M", TypeError, r"SSE_MAX_PENDING must be an int \(bytes\), not '1M'"),
    ("SSE_MAX_PENDING", 0, ValueError, r"SSE_MAX_PENDING must be 1 bytes or more, not 0"),
    ("SSE_MAX_AGE", "3600", TypeError, r"SSE_MAX_AGE must be a number of seconds or None"),
    ("SSE_MAX_AGE", True, TypeError, r"SSE_MAX_AGE must be a number of seconds or None"),
    ("SSE_MAX_AGE", 0, ValueError, r"SSE_MAX_AGE must be from 1 to .* None means no limit"),
    ("SSE_MAX_AGE", float("nan"), ValueError, r"SSE_MAX_AGE must be from 1 to .*, not nan"),
    ("SSE_MAX_CLIENTS", 0, ValueError, r"SSE_MAX_CLIENTS must be 1 streams or more or None"),
    ("SSE_MAX_CLIENTS", "9", TypeError, r"SSE_MAX_CLIENTS must be an int \(streams\) or None"),
    ("SSE_DIRECT", 1, TypeError, r"SSE_DIRECT must be True or False, not 1"),
    ("SSE_DIRECT", None, TypeError, r"SSE_DIRECT must be True or False, not None"),
    ("SSE_HISTORY", "10", TypeError, r"SSE_HISTORY must be an int \(events\) or a mapping.*'10'"),
    ("SSE_HISTORY", "latest", TypeError, r"SSE_HISTORY must be an int .* not 'latest'"),
    ("SSE_HISTORY", True, TypeError, r"SSE_HISTORY must be an int .* not True"),
    ("SSE_HISTORY", -1, ValueError, r"SSE_HISTORY must be 0 events or more, not -1"),
    ("SSE_HISTORY", {1: 5}, TypeError, r"SSE_HISTORY must map patterns .* 1 is not a str"),
    ("SSE_HISTORY", {"a*": -1}, ValueError, r"SSE_HISTORY\['a\*'\] must be 0 events or more"),
    ("SSE_HISTORY", {"a": "all"}, TypeError, r"SSE_HISTORY\['a'\] must be an int .* or 'latest'"),
    ("SSE_HISTORY", {"a": 1.5}, TypeError, r"SSE_HISTORY\['a'\] must be an int .* not 1.5"),
    ("SSE_HISTORY_TTL", "1h", TypeError, r"SSE_HISTORY_TTL must be a number of seconds, not '1h'"),
    ("SSE_HISTORY_TTL", None, TypeError, r"SSE_HISTORY_TTL must be a number of seconds, not None"),
    ("SSE_HISTORY_TTL", 0, ValueError, r"SSE_HISTORY_TTL must be from 1 to 31622400 seconds"),
    ("SSE_HISTORY_TTL", float("inf"), ValueError, r"SSE_HISTORY_TTL must be from 1 .* not inf"),
    ("SSE_PRESENCE", "room.*", TypeError, r"SSE_PRESENCE must be a list .* not 'room\.\*'"),
    ("SSE_PRESENCE", True, TypeError, r"SSE_PRESENCE must be a list .* not True"),
    ("SSE_PRESENCE", {"a": 1}, TypeError, r"SSE_PRESENCE must be a list .* not \{'a': 1\}"),
    ("SSE_PRESENCE", ["a", 1], TypeError, r"SSE_PRESENCE must be a list .* 1 is not a str"),
]


@pytest.mark.parametrize(("key", "value", "error", "text"), WRONG)
def test_a_wrong_value_is_refused_by_name(
    make_app: MakeApp, key: str, value: Any, error: type[Exception], text: str
) -> None:
    """Publish, messages and stream raise the error that names the key."""
    app = make_app(**{"REDIS_URL": "memory://", key: value})
    with app.test_request_context("/stream"):
        for attempt in (lambda: sse.publish("x"), sse.messages, sse.stream):
            with pytest.raises(error, match=text):
                attempt()


def test_all_keys_are_known() -> None:
    """The list of keys has each key that is read, and no other."""
    asked: set[str] = set()

    class Config(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return default

    Settings.from_config(Config())
    assert asked == {*KEYS}


def test_the_password_is_not_shown(make_app: MakeApp) -> None:
    """An error about a URL does not contain any part that may be a password."""
    urls = (
        "redis://:se/cret@localhost",
        "se:cret@localhost",
        "redis://u:se#cret@h:x/",
        "redis://:secret",
        "redis://:se?cret=1@h",
        "redis://:se?db=cret@h",
        "redis://h?password=se&cret=1",
        "redis://h?password=secret&db=x",
        "redis://:se[cret@h",
        "redis+sentinel://h:se/cret@h/s",
        "redis+sentinel://h/s?sentinel_password=secret&sentinel_ssl=x",
        "redis+cluster://h:se/cret@h",
        "redis+cluster://u:se#cret@h",
        "redis+cluster://h?password=secret&db=1",
        b"redis://:secret@localhost",
    )
    for url in urls:
        with make_app(REDIS_URL=url).app_context():
            with pytest.raises((ValueError, TypeError), match="REDIS_URL") as caught:
                sse.publish("x")
            assert "cret" not in str(caught.value)
            assert caught.value.__cause__ is None
            assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_settings_are_read_once(make_app: MakeApp, shared_redis: RedisServer) -> None:
    """A key that changes later has no effect on an application that has begun."""
    app = make_app(REDIS_URL=shared_redis.url)
    with app.app_context():
        client = sse.redis
        app.config["REDIS_URL"] = "redis://elsewhere"
        app.config["SSE_RETRY"] = 250
        assert sse.redis is client
        with open_stream(app) as stream:
            assert stream.first == b":\n"


def test_a_missing_url_can_be_set_later(make_app: MakeApp) -> None:
    """The error for a missing URL is not remembered, and neither are the settings."""
    app = make_app()
    with app.test_request_context("/stream"):
        for attempt in (lambda: sse.publish("x"), lambda: sse.redis, sse.messages, sse.stream):
            with pytest.raises(KeyError):
                attempt()
        app.config.update(REDIS_URL="memory://", SSE_RETRY=250)
        with open_stream(app) as stream:
            assert stream.first == b"retry:250\n"
            assert sse.publish("x") == 1
            assert stream.events(1) == [Event("message", "x", "")]


@pytest.mark.parametrize(("key", "value"), [(wrong[0], wrong[1]) for wrong in WRONG])
def test_a_wrong_value_can_be_corrected(make_app: MakeApp, key: str, value: Any) -> None:
    """After the error for a wrong value, a correct value is used."""
    app = make_app(**{"REDIS_URL": "memory://", key: value})
    with app.app_context():
        with pytest.raises((ValueError, TypeError)):
            sse.publish("x")
        del app.config[key]
        app.config["REDIS_URL"] = "memory://"
        assert sse.publish("x") == 0


def test_an_address_beside_an_overridden_client(make_app: MakeApp) -> None:
    """An application that starts without a URL, and with its own client, may set a URL later."""

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return client

    client = fakeredis.FakeStrictRedis()
    own = Own("own", __name__)
    own.add_url_rule("", endpoint="stream", view_func=own.stream)
    app = make_app(SSE_RETRY=250)
    app.register_blueprint(own, url_prefix="/own")
    with app.test_client().get("/own") as response, app.app_context():
        assert next(pieces_of(response)) == b"retry:250\n"
        app.config.update(REDIS_URL="memory://", SSE_RETRY=500)
        with open_stream(app) as stream:
            assert stream.first == b"retry:250\n"
            assert sse.publish("x") == 1


def test_the_first_uses_at_the_same_time(make_app: MakeApp) -> None:
    """If several threads are the first at the same time, all get the same Redis."""
    app = make_app(REDIS_URL="memory://")
    barrier = threading.Barrier(8)

    def first_use(_: int) -> redis.StrictRedis:
        with app.app_context():
            barrier.wait(PATIENCE)
            return sse.redis

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(first_use, range(8)))) == 1


def test_options_in_the_url_go_first(make_app: MakeApp, shared_redis: RedisServer) -> None:
    """Options in the URL's query take precedence over the defaults."""
    url = shared_redis.url + "?socket_timeout=1.5&max_connections=7"
    with make_app(REDIS_URL=url).app_context():
        pool = sse.redis.connection_pool
        assert pool.connection_kwargs["socket_timeout"] == 1.5
        assert pool.max_connections == 7
        assert sse.redis.ping()


def test_a_unix_socket(make_app: MakeApp, tmp_path: Any) -> None:
    """`unix://` reaches a Redis by its socket."""
    server = RedisServer(tmp_path, unixsocket=str(tmp_path / "redis.sock"))
    server.start()
    try:
        with make_app(REDIS_URL=f"unix://{tmp_path}/redis.sock").app_context():
            assert sse.publish("x") == 0
    finally:
        server.stop()


def test_memory_without_its_package(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to install the missing package."""
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    with (
        make_app(REDIS_URL="memory://").app_context(),
        pytest.raises(ModuleNotFoundError, match=r"pip install 'Flask-SSE\[memory\]'"),
    ):
        sse.publish("x")


@pytest.mark.parametrize("host", ["my..redis", "x" * 64])
def test_a_host_that_cannot_be_looked_up(make_app: MakeApp, host: str) -> None:
    """An invalid host name raises a connection error with the reason."""
    with (
        make_app(REDIS_URL=f"redis://{host}").app_context(),
        pytest.raises(redis.ConnectionError, match=r"REDIS_URL.*label"),
    ):
        sse.publish("x")
