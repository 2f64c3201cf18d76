"""`flask sse doctor` on a real Redis Cluster: it finds each planted fault, and no others."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest
import redis
from flask import Flask

from flask_sse import ServerSentEventsBlueprint
from tests.support import servers
from tests.support.answering import serving, streaming
from tests.support.cluster_node import ClusterNode
from tests.support.findings import Finding, bad, run_doctor
from tests.support.processes import LOOPBACK, free_port
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.servers import WORKERS
from tests.support.waiting import wait_until

_HISTORY: Final = {"logged.*": 10}
_QUICKLY: Final = "-psubscribe"
"""For a user with this rule, the doctor does not watch publishers, which takes a second."""
_FULL_COVERAGE: Final = "cluster-require-full-coverage"
_WHEN_DOWN: Final = "cluster-allow-pubsubshard-when-down"

MakeApp = Callable[..., Flask]
Examine = Callable[..., list[Finding]]


@pytest.fixture
def examine(make_app: MakeApp, redis_cluster: RedisCluster) -> Examine:
    """Return a function that runs the doctor and returns its findings."""

    def run(*arguments: str, **settings: object) -> list[Finding]:
        app = make_app(**{"REDIS_URL": redis_cluster.url, **settings})
        return run_doctor(app, "--patience", "30", *arguments)

    return run


@contextmanager
def _user(cluster: RedisCluster, *rules: str) -> Iterator[str]:
    """Make a user with some rules on all nodes, and yield the URL for it."""
    try:
        for node in cluster.nodes:
            node.admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "+@all", *rules)
        yield cluster.url.replace("://", "://app:secret@")
    finally:
        for node in cluster.nodes:
            node.admin.execute_command("ACL", "DELUSER", "app")


@contextmanager
def _configured(cluster: RedisCluster, **settings: str) -> Iterator[None]:
    """Give all nodes that run some settings, until the block ends."""
    with ExitStack() as stack:
        for node in cluster.nodes:
            for name, value in settings.items():
                key = name.replace("_", "-")
                before = node.admin.config_get(key)[key] or ""
                node.admin.config_set(key, value)
                # A node that has been killed comes back as it was at the start.
                if value != before:
                    stack.callback(_reset, cluster, node.port, key, before)
        yield


def _reset(cluster: RedisCluster, port: int, key: str, value: str) -> None:
    for node in cluster.nodes:
        if node.port == port and node.is_running:
            node.admin.config_set(key, value)


def _addresses(cluster: RedisCluster) -> list[str]:
    """Return the address of each primary."""
    return ["{}:{}".format(*node.address) for node in cluster.primaries()]


def _keys(cluster: RedisCluster) -> set[bytes | str]:
    """Return the keys that all primaries have."""
    return {key for node in cluster.primaries() for key in node.admin.scan_iter()}


def _texts(findings: list[Finding], check: str) -> list[str]:
    return [finding.found for finding in findings if finding.check == check]


def _replica(cluster: RedisCluster) -> ClusterNode:
    """Return a replica that is not named in the URL: any node may have become one."""
    replicas = [node for primary in cluster.primaries() for node in cluster.replicas(primary)]
    return next(node for node in replicas if node not in cluster.nodes[:2])


def test_good_cluster(examine: Examine, redis_cluster: RedisCluster) -> None:
    """Each primary is checked, and nothing is left behind.

    A replica may be among the nodes in the URL. One of these that is away is worth a warning.
    """
    addresses = _addresses(redis_cluster)
    replica = _replica(redis_cluster).port
    away = free_port()
    url = f"{redis_cluster.url},{LOOPBACK}:{replica},{LOOPBACK}:{away}"
    before = _keys(redis_cluster)
    findings = examine(REDIS_URL=url, SSE_HISTORY=10)
    [problem] = bad(findings)
    assert (problem.level, problem.check) == ("warn", "start nodes")
    assert problem.found.startswith(f"{LOOPBACK}:{away}: there is no connection")
    assert list(dict.fromkeys(finding.check for finding in findings)) == [
        *("url", "keep-alive setting", "streams", "start nodes"),
        *("redis", "redis version", "slots", "cluster settings", "redis connections"),
        *("subscribe", "publish", "control channel", "history", "redis memory", "publishers"),
    ]
    assert "3 of 4 answer" in _texts(findings, "start nodes")
    for check in ("redis", "publish"):
        found = " ".join(_texts(findings, check))
        assert all(address in found for address in addresses)
    assert "all 3 primaries: it keeps an event and returns it" in _texts(findings, "history")
    # Keys of earlier tests may have expired.
    assert _keys(redis_cluster) <= before


def test_a_stream(
    examine: Examine, redis_cluster: RedisCluster, tmp_path: Path, channel: str
) -> None:
    """The events of a stream are those of the cluster, and so are the missed ones."""
    settings: dict[str, object] = {
        "REDIS_URL": redis_cluster.url,
        "SSE_HISTORY": _HISTORY,
        "SSE_KEEPALIVE": 0.1,
    }
    with servers.gunicorn(tmp_path, *WORKERS["gthread"], settings=settings) as site:
        assert site.get("/") == "hello"
        url = f"http://{LOOPBACK}:{site.port}/stream?channel=logged.{channel}"
        with _user(redis_cluster, "&*", "~*", _QUICKLY) as login:
            findings = examine("--url", url, **{**settings, "REDIS_URL": login})
    assert bad(findings) == []
    assert [finding.check for finding in findings][-3:] == ["Last-Event-ID", "long id", "long id"]


@pytest.mark.long
def test_a_stream_of_another_redis(examine: Examine, redis_cluster: RedisCluster) -> None:
    """A server that is not subscribed in this cluster is found."""
    with (
        _user(redis_cluster, "&*", _QUICKLY) as login,
        serving(streaming(b":\n", stays_open=True)) as (url, _),
    ):
        findings = examine("--patience", "5", "--url", url, REDIS_URL=login, SSE_KEEPALIVE=0.1)
    assert ("fail", "events") in [(finding.level, finding.check) for finding in findings]


@pytest.mark.parametrize(
    ("rules", "check", "rule"),
    [
        (("-ssubscribe", "&*", "~*"), "subscribe", "+ssubscribe +sunsubscribe"),
        (("-spublish", "&*", "~*"), "publish", "+spublish"),
        (("resetchannels", "~*"), "subscribe", "&*"),
        (("-cluster|slots", "&*", "~*"), "start nodes", "+cluster|slots"),
    ],
)
def test_permissions(
    examine: Examine, redis_cluster: RedisCluster, rules: tuple[str, ...], check: str, rule: str
) -> None:
    """The rule is named that a user lacks."""
    with _user(redis_cluster, *rules, _QUICKLY) as url:
        problems = bad(examine(REDIS_URL=url))
    assert [(problem.level, problem.check) for problem in problems] == [("fail", check)]
    assert problems[0].remedy.startswith(f"on every node, run ACL SETUSER app {rule}")


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        (("-evalsha", "&*", "~*"), "+evalsha"),
        (("-xadd", "&*", "~*"), "+xadd"),
        (("resetkeys", "&*"), "~flask-sse:*"),
    ],
)
def test_permissions_of_history(
    examine: Examine, redis_cluster: RedisCluster, rules: tuple[str, ...], rule: str
) -> None:
    """The rule is named that history lacks, on channels with and without it."""
    with _user(redis_cluster, *rules, _QUICKLY) as url:
        problems = bad(examine(REDIS_URL=url, SSE_HISTORY=_HISTORY))
    assert [(problem.level, problem.check) for problem in problems] == [("fail", "history")]
    assert f" {rule}" in problems[0].remedy


def test_permissions_of_presence(examine: Examine, redis_cluster: RedisCluster) -> None:
    """Each primary lets a client join, or the rule is named that is missing."""
    findings = examine(REDIS_URL=redis_cluster.url, SSE_PRESENCE=["*"])
    assert "all 3 primaries: it lets a client join and leave" in _texts(findings, "presence")
    with _user(redis_cluster, "-hgetall", "&*", "~*", _QUICKLY) as url:
        problems = bad(examine(REDIS_URL=url, SSE_PRESENCE=["*"]))
    assert [(problem.level, problem.check) for problem in problems] == [("fail", "presence")]
    assert " +hgetall" in problems[0].remedy


def test_permission_for_one_channel(examine: Examine, redis_cluster: RedisCluster) -> None:
    """A user with few channels can name one; the other primaries can't be checked then."""
    with _user(redis_cluster, "resetchannels", "&news", "~*", _QUICKLY) as url:
        findings = examine("--channel", "news", REDIS_URL=url, SSE_HISTORY=_HISTORY)
    problems = [(problem.level, problem.check) for problem in bad(findings)]
    assert problems == [("warn", "subscribe"), ("warn", "control channel"), ("warn", "history")]
    owner = "{}:{}".format(*redis_cluster.node_of(b"news").address)
    [published] = _texts(findings, "publish")
    assert published.startswith(f"{owner}: an event arrives after ")


def test_a_user_who_may_ask_nothing(examine: Examine, redis_cluster: RedisCluster) -> None:
    """A user like those of managed services gets no false alarm."""
    with _user(redis_cluster, "-config", "-info", "&*", "~*", _QUICKLY) as url:
        problems = bad(examine(REDIS_URL=url))
    assert [(problem.level, problem.check) for problem in problems] == [("warn", "redis version")]


def test_login(examine: Examine, redis_cluster: RedisCluster) -> None:
    """A wrong password is one finding for all nodes."""
    with _user(redis_cluster) as url:
        findings = examine(REDIS_URL=url.replace("secret", "wrong"))
    [problem] = bad(findings)
    assert all(node in problem.found for node in redis_cluster.start_nodes)
    assert "it refuses the user or the password" in problem.found
    assert "wrong" not in str(findings)


def test_url_of_a_single_redis(examine: Examine, redis_cluster: RedisCluster) -> None:
    """A cluster behind the URL of a single Redis is found, with the URL to use."""
    node = redis_cluster.start_nodes[0]
    [problem] = bad(examine(REDIS_URL=f"redis://{node}"))
    assert (problem.level, problem.check) == ("warn", "cluster")
    findings = examine(REDIS_URL=f"redis://{node}", SSE_HISTORY=10)
    assert bad(findings) == [findings[-1]]
    assert (findings[-1].level, findings[-1].check) == ("fail", "cluster")
    for finding in (problem, findings[-1]):
        assert f"begin REDIS_URL with redis+cluster://{node};" in finding.remedy


def test_a_single_redis_behind_the_url_of_a_cluster(
    make_app: MakeApp, shared_redis: RedisServer
) -> None:
    """The finding names the URL to use."""
    url = shared_redis.url.replace("redis://", "redis+cluster://")
    [problem] = bad(run_doctor(make_app(REDIS_URL=url)))
    assert (problem.level, problem.check) == ("fail", "cluster")
    assert problem.found == f"{LOOPBACK}:{shared_redis.port}: it is not part of a cluster"
    assert problem.remedy.startswith("begin the URL with redis:// instead of redis+cluster://")


def test_nobody_answers(make_app: MakeApp) -> None:
    """A cluster of which no node answers is one finding for each node."""
    ports = (free_port(), free_port())
    url = "redis+cluster://" + ",".join(f"{LOOPBACK}:{port}" for port in ports)
    problems = bad(run_doctor(make_app(REDIS_URL=url)))
    assert [(problem.level, problem.check) for problem in problems] == [("fail", "redis")] * 2
    assert all(
        problem.found.startswith(f"{LOOPBACK}:{port}: there is no connection: ")
        for problem, port in zip(problems, ports, strict=True)
    )


def test_announced_address(examine: Examine, redis_cluster: RedisCluster) -> None:
    """An address that clients can't reach is found, whichever nodes are in the URL."""
    first, second, third = redis_cluster.primaries()
    wrong = free_port()
    address = f"{LOOPBACK}:{wrong}"
    with _user(redis_cluster, "&*", _QUICKLY), redis_cluster.announcing(third, wrong):
        direct = examine(REDIS_URL=f"redis+cluster://app:secret@{LOOPBACK}:{third.port}")
        others = examine(REDIS_URL=f"redis+cluster://app:secret@{LOOPBACK}:{second.port}")
    for findings, found in (
        (direct, f"the node at {LOOPBACK}:{third.port} makes its clients connect to {address}, "),
        (others, f"the other nodes reach the one that they call {address}; from here, "),
    ):
        [problem] = bad(findings)
        assert (problem.level, problem.check) == ("fail", "announced address")
        assert problem.found.startswith(found)
        assert "cluster-announce-hostname" in problem.remedy
        published = " ".join(_texts(findings, "publish"))
        assert all(f"{LOOPBACK}:{node.port}" in published for node in (first, second))


def test_announced_address_of_a_replica(examine: Examine, redis_cluster: RedisCluster) -> None:
    """It is worth a warning, since it is needed only after a failover."""
    replica = _replica(redis_cluster)
    wrong = free_port()
    with (
        _user(redis_cluster, "&*", _QUICKLY) as url,
        redis_cluster.announcing(replica, wrong),
    ):
        [problem] = bad(examine(REDIS_URL=url))
    assert (problem.level, problem.check) == ("warn", "announced address")
    assert f"they call {LOOPBACK}:{wrong}; from here, " in problem.found
    assert "it is a replica" in problem.found


def test_a_replica_without_the_user(examine: Examine, redis_cluster: RedisCluster) -> None:
    """Each node has its own users, so one may be missing where it is needed after a failover."""
    replica = _replica(redis_cluster)
    with _user(redis_cluster, "&*", _QUICKLY) as url:
        replica.admin.execute_command("ACL", "DELUSER", "app")
        [problem] = bad(examine(REDIS_URL=url))
    assert (problem.level, problem.check) == ("warn", "redis")
    assert problem.found.startswith(f"{LOOPBACK}:{replica.port}: it refuses the user")


def test_cluster_settings(examine: Examine, redis_cluster: RedisCluster) -> None:
    """Settings that stop all channels when one primary is lost are explained."""
    with (
        _configured(redis_cluster, **{_FULL_COVERAGE: "yes", _WHEN_DOWN: "no"}),
        _user(redis_cluster, "&*", "~*", _QUICKLY) as url,
    ):
        problems = bad(examine(REDIS_URL=url, SSE_HISTORY=_HISTORY))
    assert {(problem.level, problem.check) for problem in problems} == {
        ("warn", "cluster settings")
    }
    assert [problem.remedy.split(",")[0] for problem in problems] == [
        f"set {_FULL_COVERAGE} to no",
        f"set {_WHEN_DOWN} to yes",
    ]
    assert all(address in problems[0].found for address in _addresses(redis_cluster))


def test_full_coverage_without_history(examine: Examine, redis_cluster: RedisCluster) -> None:
    """Events without history don't need full coverage, so it is no fault."""
    with (
        _configured(redis_cluster, **{_FULL_COVERAGE: "yes"}),
        _user(redis_cluster, "&*", _QUICKLY) as url,
    ):
        assert bad(examine(REDIS_URL=url)) == []


@pytest.mark.long
def test_a_lost_primary(examine: Examine, redis_cluster: RedisCluster) -> None:
    """A primary that all nodes have lost is found, and what that means for history elsewhere."""
    lost, *others = redis_cluster.primaries()
    lost_address = "{}:{}".format(*lost.address)
    url = "redis+cluster://" + ",".join(f"{LOOPBACK}:{node.port}" for node in others)
    with _configured(redis_cluster, **{_FULL_COVERAGE: "yes"}):
        redis_cluster.kill(redis_cluster.replicas(lost)[0])
        redis_cluster.kill(lost)
        wait_until(lambda: all(node.state() == "fail" for node in others), "a cluster that is down")
        findings = examine(REDIS_URL=url, SSE_HISTORY=_HISTORY)
    problems = {(finding.level, finding.check): finding for finding in bad(findings)}
    assert problems["fail", "redis"].found.startswith(f"{lost_address}: there is no connection")
    assert "the other nodes have lost it, too" in problems["fail", "redis"].found
    assert "according to " in problems["fail", "slots"].found
    assert f"with {_FULL_COVERAGE} no, only" in problems["fail", "slots"].remedy
    assert ("fail", "history") in problems


def test_publishers(examine: Examine, redis_cluster: RedisCluster) -> None:
    """A process that publishes as on a single Redis is found: no stream gets its events."""
    done = Event()
    admin = redis_cluster.nodes[-1].admin

    def publish() -> None:
        while not done.wait(0.05):
            admin.publish("news", '{"data": "x"}')

    publisher = Thread(target=publish)
    publisher.start()
    try:
        [problem] = bad(examine())
    finally:
        done.set()
        publisher.join()
    assert (problem.level, problem.check) == ("warn", "publishers")
    assert problem.found.startswith("somebody publishes to news with PUBLISH")


def test_overridden_client(redis_cluster: RedisCluster) -> None:
    """The doctor checks the cluster whose client a blueprint provides."""
    host, port = redis_cluster.nodes[0].address

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> Any:
            return client

    app = Flask("own", static_folder=None)
    app.register_blueprint(Own("own", __name__))
    with (
        _user(redis_cluster, "&*", _QUICKLY),
        redis.RedisCluster(host=host, port=port, username="app", password="secret") as client,
    ):
        findings = run_doctor(app, "--patience", "30", group="own")
    assert bad(findings) == []
    assert _texts(findings, "url") == ["an overridden redis provides its own"]
    assert "6 of 6 answer" in _texts(findings, "start nodes")


@contextmanager
def _node(folder: Path, *slots: int, without: str = "PSUBSCRIBE") -> Iterator[str]:
    """Run a cluster of one node, which has ranges of slots, and yield its URL.

    :param without: A command that it does not have; see `_QUICKLY`.
    """
    node = RedisServer(folder)
    node.options["cluster-enabled"] = "yes"
    node.options[f"rename-command {without}"] = "NONE"
    # The default one may be too large.
    node.options["cluster-port"] = str(free_port())
    node.start()
    try:
        if slots:
            node.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        yield f"redis+cluster://{LOOPBACK}:{node.port}"
    finally:
        node.stop()


def test_an_old_server(make_app: MakeApp, tmp_path: Path) -> None:
    """A cluster whose servers have no sharded Pub/Sub is refused."""
    with _node(tmp_path, 0, 16_383, without="SSUBSCRIBE") as url:
        problems = bad(run_doctor(make_app(REDIS_URL=url), "--patience", "30"))
    [remedy] = [problem.remedy for problem in problems if problem.check == "subscribe"]
    assert remedy == "use Redis 7 or later, or Valkey"


@pytest.mark.parametrize(
    ("slots", "free"), [((0, 4, 6, 16_381), "5, 16382-16383"), ((), "0-16383")]
)
def test_slots_without_a_primary(
    make_app: MakeApp, tmp_path: Path, slots: tuple[int, ...], free: str
) -> None:
    """Slots that no node has are named."""
    with _node(tmp_path, *slots) as url:
        problems = bad(run_doctor(make_app(REDIS_URL=url), "--patience", "30"))
    assert {(problem.level, problem.check) for problem in problems} >= {("fail", "slots")}
    assert problems[0].found.startswith(f"no primary has the slots {free}: ")


@pytest.mark.long
def test_newer_servers(make_app: MakeApp, newer_cluster: RedisCluster) -> None:
    """The checks and the missing rules are the same on newer servers, whose errors differ."""

    def run(url: str) -> list[Finding]:
        app = make_app(REDIS_URL=url, SSE_HISTORY=_HISTORY)
        return bad(run_doctor(app, "--patience", "30"))

    assert run(newer_cluster.url) == []
    for rules, check, rule in (
        (("-ssubscribe", "&*", "~*"), "subscribe", "+ssubscribe +sunsubscribe"),
        (("-xadd", "&*", "~*"), "history", "+xadd"),
        (("resetkeys", "&*"), "history", "~flask-sse:*"),
        (("-cluster|slots", "&*", "~*"), "start nodes", "+cluster|slots"),
    ):
        with _user(newer_cluster, *rules, _QUICKLY) as url:
            [problem] = run(url)
        assert problem.check == check
        assert problem.remedy == f"on every node, run ACL SETUSER app {rule}"
    with _user(newer_cluster, "resetchannels", "~*", _QUICKLY) as url:
        subscribe, history = run(url)
    assert (subscribe.check, history.check) == ("subscribe", "history")
    assert " app &*;" in subscribe.remedy
    assert " app &*;" in history.remedy
