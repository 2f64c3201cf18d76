"""Publishing has connections of its own, and the application's client is left alone."""

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest
import redis
from flask import Config, Flask

from flask_sse import ServerSentEventsBlueprint, history, sse
from tests.support.forgetful_proxy import ForgetfulProxy
from tests.support.interrupting import run_with_interruptions
from tests.support.listening import listening
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE, wait_until

MakeApp = Callable[..., Flask]
NATIVE_THREADS = ROOT / "tests" / "apps" / "native_threads.py"
NATIVE_LISTENER = ROOT / "tests" / "apps" / "native_listener.py"


def _outcome(call: Callable[[], object]) -> str:
    try:
        return repr(call())
    except redis.RedisError as error:
        return type(error).__name__


@pytest.mark.long
def test_blocking_commands_last_as_long_as_ever(
    make_app: MakeApp, shared_redis: RedisServer
) -> None:
    """A command that waits longer than 5 seconds ends as on a plain redis-py client."""

    def outcomes(client: redis.Redis, name: str) -> list[str]:
        with client.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(name)
            wait_until(lambda: shared_redis.listeners(name), "subscribed")
            timer = threading.Timer(6.0, shared_redis.admin.publish, [name, "late"])
            timer.start()
            messages = pubsub.listen()
            return [
                _outcome(lambda: next(messages)["data"]),
                _outcome(lambda: client.blpop(["empty"], timeout=7)),
            ]

    with make_app(REDIS_URL=shared_redis.url).app_context(), ThreadPoolExecutor(2) as pool:
        ours = pool.submit(outcomes, sse.redis, "ours")
        theirs = pool.submit(outcomes, redis.StrictRedis.from_url(shared_redis.url), "theirs")
        assert ours.result(PATIENCE) == theirs.result(PATIENCE)


def test_pubsubs_of_the_application_leave_room_for_publish(
    make_app: MakeApp, shared_redis: RedisServer
) -> None:
    """The application may hold as many connections as it likes, and `publish` has its own."""
    with make_app(REDIS_URL=shared_redis.url).app_context(), ExitStack() as stack:
        for number in range(105):
            pubsub = stack.enter_context(sse.redis.pubsub())
            pubsub.subscribe(f"own-{number}")
        assert sse.publish("x", channel="own-104") == 1


def test_many_publish_at_a_time(make_app: MakeApp, shared_redis: RedisServer) -> None:
    """More threads than there are connections take turns, and no event is lost."""
    app = make_app(REDIS_URL=f"{shared_redis.url}?max_connections=3")

    def publish(number: int) -> int:
        with app.app_context():
            return sse.publish(number, channel="many")

    with listening(shared_redis.admin, "many") as listener, ThreadPoolExecutor(20) as pool:
        before = shared_redis.admin.info("stats")["total_connections_received"]
        assert list(pool.map(publish, range(200))) == [1] * 200
        after = shared_redis.admin.info("stats")["total_connections_received"]
        assert sorted(payload["data"] for payload in listener.payloads(200)) == [*range(200)]
    assert after - before <= 3


def test_no_connection_is_free(make_app: MakeApp, redis_server: RedisServer) -> None:
    """If `publish` finds no connection within 5 seconds, the error says how to allow more."""
    app = make_app(REDIS_URL=f"{redis_server.url}?max_connections=1&socket_timeout=20")

    def publish(data: str) -> int:
        with app.app_context():
            return sse.publish(data)

    assert publish("connects") == 0
    redis_server.freeze()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(publish, data) for data in ("first", "second")]
        wait_until(lambda: any(each.done() for each in both), "one has given up")
        redis_server.thaw()
        errors = [each.exception(PATIENCE) for each in both]
    assert errors.count(None) == 1
    [error] = filter(None, errors)
    assert isinstance(error, redis.ConnectionError)
    assert "max_connections in the query of REDIS_URL" in str(error)


def test_events_that_the_garbage_collector_causes(shared_redis: RedisServer) -> None:
    """A generator that publishes at its end may be closed while something else is published."""
    app = Flask("tests")
    app.config["REDIS_URL"] = shared_redis.url
    published: list[int] = []

    def publish() -> None:
        with app.app_context():
            published.append(sse.publish("x", channel="collected"))

    run_with_interruptions(publish, publish)
    assert set(published) == {0}


def test_a_late_answer_is_no_second_event(make_app: MakeApp, redis_server: RedisServer) -> None:
    """If the answer does not arrive in time, `publish` raises an error and does not send again."""
    app = make_app(REDIS_URL=f"{redis_server.url}?socket_timeout=2")
    with app.app_context(), listening(redis_server.admin) as listener:
        assert sse.publish("before") == 1
        redis_server.freeze()
        with pytest.raises(redis.TimeoutError):
            sse.publish("late")
        redis_server.thaw()
        assert sse.publish("after") == 1
        assert [payload["data"] for payload in listener.payloads(3)] == ["before", "late", "after"]


def test_a_redis_that_has_restarted(make_app: MakeApp, redis_server: RedisServer) -> None:
    """A connection that Redis has closed is noticed before anything is sent on it."""
    with make_app(REDIS_URL=redis_server.url).app_context():
        assert sse.publish("before") == 0
        redis_server.stop()
        with pytest.raises(redis.ConnectionError):
            sse.publish("meanwhile")
        redis_server.start()
        assert sse.publish("after") == 0


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "black hole"])
def test_connections_that_a_firewall_has_forgotten(
    make_app: MakeApp, shared_redis: RedisServer, channel: str, resets: bool
) -> None:
    """Each event that is published after a pause arrives, and arrives once."""
    sent = ["first", "second", "third"]
    with (
        ForgetfulProxy(shared_redis.port, idle=1.3, resets=resets) as proxy,
        make_app(REDIS_URL=f"redis://{LOOPBACK}:{proxy.port}").app_context(),
        listening(shared_redis.admin, channel) as listener,
    ):
        for number, data in enumerate(sent, 1):
            assert sse.publish(data, channel=channel) == 1
            wait_until(partial(_has_forgotten, proxy, number), "the proxy has forgotten")
        assert [payload["data"] for payload in listener.payloads(3)] == sent
        assert proxy.accepted == 3


def _has_forgotten(proxy: ForgetfulProxy, number: int) -> bool:
    return proxy.forgotten == number


def test_an_idle_connection_that_works_is_kept(
    make_app: MakeApp, shared_redis: RedisServer
) -> None:
    """After a pause the same connection is used, without a new login."""
    with (
        ForgetfulProxy(shared_redis.port) as proxy,
        make_app(REDIS_URL=f"redis://{LOOPBACK}:{proxy.port}").app_context(),
    ):
        sse.publish("first")
        wait_until(lambda: proxy.idle_for > 1.2, "idle")
        sse.publish("second")
        assert proxy.accepted == 1


def test_a_new_connection_is_used_as_it_is(make_app: MakeApp, redis_server: RedisServer) -> None:
    """Nothing but the event is sent on it, after the login; also after a loss of connection."""
    with make_app(REDIS_URL=redis_server.url).app_context():
        for _ in range(2):
            assert sse.publish("x") == 0
            redis_server.admin.client_kill_filter(_type="normal", skipme=True)
    assert "cmdstat_ping" not in redis_server.admin.info("commandstats")


def test_applications_that_are_made_for_each_task(
    make_app: MakeApp, shared_redis: RedisServer, channel: str
) -> None:
    """They share connections, though the garbage collector has not found them yet."""
    url = f"{shared_redis.url}?client_name={channel}"

    def run_task() -> None:
        with make_app(REDIS_URL=url, SSE_HISTORY={"log-*": 10}).app_context():
            sse.publish("x", channel=channel)
            sse.publish("x", channel=f"log-{channel}")
            history.position(f"log-{channel}")
            sse.redis.set(channel, 1)
            sse.redis.close()

    gc.collect()
    gc.disable()
    try:
        for _ in range(60):
            run_task()
        assert 1 <= _connections(shared_redis, channel) <= 2
    finally:
        gc.enable()
    gc.collect()
    wait_until(lambda: not _connections(shared_redis, channel), "all connections are closed")


def test_applications_with_different_options(
    make_app: MakeApp, shared_redis: RedisServer, channel: str
) -> None:
    """They don't share connections."""
    apps = [
        make_app(REDIS_URL=f"{shared_redis.url}?client_name={channel}-{number}")
        for number in range(2)
    ]
    for app in apps:
        with app.app_context():
            sse.publish("x")
    assert [_connections(shared_redis, f"{channel}-{number}") for number in range(2)] == [1, 1]


def test_a_fork_does_not_share_connections(
    make_app: MakeApp, shared_redis: RedisServer, channel: str
) -> None:
    """A new application in a forked process connects anew, and the parent's connection works."""
    url = f"{shared_redis.url}?client_name={channel}"
    with make_app(REDIS_URL=url).app_context():
        sse.publish("from the parent", channel=channel)
        with listening(shared_redis.admin, channel) as listener:
            child = os.fork()
            if not child:
                status = 1
                try:
                    with make_app(REDIS_URL=url).app_context():
                        sse.publish("from the child", channel=channel)
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
            sse.publish("from the parent", channel=channel)
            data = [payload["data"] for payload in listener.payloads(2)]
    assert data == ["from the child", "from the parent"]
    assert _connections(shared_redis, channel) == 1


def _connections(server: RedisServer, name: str) -> int:
    """Return how many connections have a name."""
    return [each["name"] for each in server.admin.client_list()].count(name)


def test_settings_beside_an_overridden_client(shared_redis: RedisServer) -> None:
    """They are parsed for the first event, and not again."""

    class Counted(Config):
        reads = 0

        def get(self, key: str, default: object = None) -> object:
            self.reads += key == "SSE_KEEPALIVE"
            return super().get(key, default)

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return client

    own = Own("own", __name__)
    client = redis.StrictRedis(port=shared_redis.port)
    app = Flask("tests")
    app.config = counted = Counted(app.root_path, app.config)
    with app.app_context():
        own.publish("first")
        first = counted.reads
        for number in range(5):
            own.publish(number)
    assert 1 <= first == counted.reads
    client.close()


def test_idle_where_ping_is_forbidden(make_app: MakeApp, redis_server: RedisServer) -> None:
    """Any answer shows that Redis is there, even a refusal."""
    redis_server.admin.execute_command(
        "ACL", "SETUSER", "app", "on", ">secret", "&*", "+publish", "+select", "+client", "+hello"
    )
    url = redis_server.url.replace("//", "//app:secret@")
    with make_app(REDIS_URL=url).app_context(), listening(redis_server.admin) as listener:
        assert sse.publish("first") == 1
        idle_since = time.monotonic()
        wait_until(lambda: time.monotonic() - idle_since > 1.2, "idle")
        assert sse.publish("second") == 1
        assert [payload["data"] for payload in listener.payloads(2)] == ["first", "second"]


def test_an_overridden_client_publishes(shared_redis: RedisServer) -> None:
    """The `redis` of a subclass publishes, with its own connections."""
    client = redis.StrictRedis(port=shared_redis.port, client_name="overridden")

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return client

    own = Own("own", __name__)
    app = Flask("tests")
    with app.app_context():
        assert own.publish("x", channel="nobody") == 0
    names = [each["name"] for each in shared_redis.admin.client_list(_type="normal")]
    assert names.count("overridden") == 1
    client.close()


def test_native_threads_beside_gevents(shared_redis: RedisServer) -> None:
    """Native threads of gevent and greenlets publish without disturbing each other."""
    program = [sys.executable, "-W", "error", "-m", "gevent.monkey", str(NATIVE_THREADS)]
    with listening(shared_redis.admin) as listener:
        done = subprocess.run(
            [*program, shared_redis.url, "100"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=4 * PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == []
        data = [payload["data"] for payload in listener.payloads(301)]
    assert sorted(data) == sorted(
        [f"greenlet {number}" for number in range(100)] * 2
        + [f"thread {number}" for number in range(101)]
    )


def test_a_native_thread_that_listens_first(shared_redis: RedisServer) -> None:
    """The hub does not run in that thread, so others get their events after it has ended."""
    done = subprocess.run(
        [sys.executable, "-m", "gevent.monkey", str(NATIVE_LISTENER), shared_redis.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == ["native", "greenlet", "another", "native again"]
