"""`flask sse doctor`: it finds each planted fault, and finds no faults in a good site."""

import os
import re
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event as ThreadEvent
from threading import Thread
from typing import Any, Final

import pytest
import redis
import trustme
from flask import Flask

from flask_sse import ServerSentEventsBlueprint, sse
from flask_sse._doctor.finding import ok, soon
from tests.support import servers
from tests.support.answering import serving, streaming
from tests.support.client import StreamClient
from tests.support.commands import flask_command
from tests.support.findings import Finding, bad, run_doctor
from tests.support.listening import listening
from tests.support.nginx import documented_site, nginx
from tests.support.processes import LOOPBACK, free_port, running
from tests.support.redis_server import RedisServer
from tests.support.servers import WORKERS, Site
from tests.support.slow_proxy import SlowProxy

_KEEPALIVE: Final = 0.1
_HISTORY: Final = {"logged.*": 10}
_SERVER: Final = """
server {{
    listen 127.0.0.1:{port}{tls};
    {certificate}
    location / {{
        proxy_pass http://127.0.0.1:{app_port};
        {options}
    }}
}}
"""
_FAULTS: Final = {
    "buffering": "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;",
    "gzip": "gzip on; gzip_types text/event-stream;",
    "timeout": "proxy_read_timeout 5s;",
    "limit_conn": "limit_conn few 1;",
    "cursor": 'proxy_set_header Last-Event-ID "";',
    "headers": (
        "proxy_hide_header Cache-Control; add_header Cache-Control max-age=60;"
        "add_header Access-Control-Allow-Origin https://app.example;"
    ),
    "moved": "rewrite ^/old$ /stream redirect;",
    "login": "rewrite ^ / redirect;",
    "error": "return 503;",
}

Findings = dict[str, tuple[str, str, str]]
Examine = Callable[..., Findings]


class Proxies(dict[str, str]):
    """The URL of the stream behind each proxy."""

    certificate = ""


@pytest.fixture(scope="module")
def site(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a site as it should be, with frequent comments."""
    settings = _settings(shared_redis, SSE_HISTORY=_HISTORY)
    with servers.gunicorn(
        tmp_path_factory.mktemp("app"), *WORKERS["gthread"], settings=settings
    ) as running_site:
        yield running_site


@pytest.fixture(scope="module")
def silent_site(
    shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Return a site whose streams are silent for longer than a proxy waits."""
    settings = _settings(shared_redis, SSE_KEEPALIVE=15)
    with servers.gunicorn(tmp_path_factory.mktemp("silent"), settings=settings) as running_site:
        yield running_site


@pytest.fixture(scope="module")
def proxies(
    site: Site, silent_site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxies]:
    """Run one nginx, with a server for each fault, and with that of the documentation."""
    folder = tmp_path_factory.mktemp("nginx")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    issued = authority.issue_cert(LOOPBACK)
    issued.private_key_pem.write_to_path(folder / "privkey.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "fullchain.pem")
    certificate = (
        f"ssl_certificate {folder}/fullchain.pem; ssl_certificate_key {folder}/privkey.pem;"
    )
    found = Proxies()
    found.certificate = str(folder / "authority.pem")
    parts = ["limit_conn_zone $binary_remote_addr zone=few:1m;"]
    for name, options in _FAULTS.items():
        app_port = silent_site.port if name == "timeout" else site.port
        port = free_port()
        found[name] = f"http://{LOOPBACK}:{port}/stream"
        server = {"port": port, "app_port": app_port, "options": options}
        parts.append(_SERVER.format(**server, tls="", certificate=""))
    for name, tls in (("http2", " ssl http2"), ("tls", " ssl")):
        port = free_port()
        found[name] = f"https://{LOOPBACK}:{port}/stream"
        server = {"port": port, "app_port": site.port, "options": ""}
        parts.append(_SERVER.format(**server, tls=tls, certificate=certificate))
    port = free_port()
    found["documented"] = f"https://{LOOPBACK}:{port}/stream"
    parts.append(documented_site(site.port, port, free_port(), folder))
    command = nginx(folder, "\n".join(parts))
    with running(command, port, folder / "nginx.log"):
        yield found


@pytest.fixture
def examine(make_app: Callable[..., Flask], shared_redis: RedisServer) -> Examine:
    """Return a function that runs the doctor and returns the finding of each check."""

    def run(*arguments: str, **settings: object) -> Findings:
        return _run(make_app(**_settings(shared_redis, **settings)), *arguments)

    return run


def _settings(server: RedisServer, **settings: object) -> dict[str, object]:
    return {"REDIS_URL": server.url, "SSE_KEEPALIVE": _KEEPALIVE, **settings}


def _at(site: Site) -> str:
    """Return the URL of a site's stream, once the site answers."""
    assert site.get("/") == "hello"
    return f"http://{LOOPBACK}:{site.port}/stream"


def _run(app: Flask, *arguments: str, group: str = "sse") -> Findings:
    """Return the finding of each check."""
    findings = run_doctor(app, *arguments, group=group)
    return {one.check: (one.level, one.found, one.remedy) for one in findings}


def _bad(findings: Findings) -> dict[str, str]:
    """Return what is wrong, apart from delays: the machine may be slow."""
    listed = [Finding(level, check, *texts) for check, (level, *texts) in findings.items()]
    return {finding.check: finding.level for finding in bad(listed)}


def test_delays() -> None:
    """What takes more than a second is worth a warning."""
    assert soon("headers", "late", 1.0) == ok("headers", "late")
    late = soon("headers", "late", 1.1)
    assert (late.level, late.check, late.found) == ("warn", "headers", "late")
    assert late.remedy.startswith("find out what delays it")


def test_good_site(
    examine: Examine,
    proxies: Proxies,
    shared_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind the documentation's nginx there is no fault, and everything is checked."""
    monkeypatch.setenv("SSL_CERT_FILE", proxies.certificate)
    before = {*shared_redis.admin.keys()}
    url = f"{proxies['documented']}?channel=logged.doctor"
    findings = examine("--url", url, SSE_HISTORY=_HISTORY)
    assert _bad(findings) == {}
    assert list(findings) == [
        *("url", "keep-alive setting", "streams"),
        *("redis", "redis version", "redis connections", "subscribe", "publish"),
        "control channel",
        *("history", "redis memory", "publishers"),
        *("headers", "content type", "caching", "compression", "HTTP version", "server"),
        *("first byte", "buffering", "several streams", "keep-alive", "Last-Event-ID"),
        "long id",
    ]
    assert {*shared_redis.admin.keys()} - before == {b"flask-sse:{logged.doctor}:logged.doctor"}
    shared_redis.wait_listeners(0, "logged.doctor")


def test_leaves_nothing_behind(examine: Examine, site: Site, shared_redis: RedisServer) -> None:
    """Without a channel it uses a new one and cleans up afterwards, also with history."""
    before = {*shared_redis.admin.keys()}
    findings = examine("--url", _at(site), "--patience", "10", SSE_HISTORY=10)
    # The server keeps other channels.
    assert _bad(findings) == {"Last-Event-ID": "fail"}
    assert {*shared_redis.admin.keys()} <= before


def test_slow_way_from_redis(examine: Examine, shared_redis: RedisServer, tmp_path: Path) -> None:
    """An event that arrives late is not mistaken for one from the history."""
    arguments = ("--channel", "slow", "--patience", "10")
    with SlowProxy(shared_redis.port, delay=0.1) as proxy:
        settings = _settings(shared_redis, REDIS_URL=f"redis://{LOOPBACK}:{proxy.port}")
        with (
            servers.gunicorn(tmp_path, *WORKERS["gthread"], settings=settings) as site,
            # Because of this client the server stays subscribed.
            StreamClient(site.port, "slow").open(),
        ):
            findings = examine("--url", _at(site), *arguments, SSE_HISTORY=10)
    assert _bad(findings) == {"Last-Event-ID": "fail"}


def test_good_site_without_a_proxy(examine: Examine, site: Site) -> None:
    """The check names the server, and says that the stream has its own connection."""
    findings = examine("--url", _at(site))
    assert _bad(findings) == {}
    level, found, _ = findings["server"]
    assert (level, found) == (
        "ok",
        "gunicorn; the stream has its own connection, as after a hand-over",
    )


def test_lines_for_people(
    make_app: Callable[..., Flask], site: Site, shared_redis: RedisServer
) -> None:
    """Each check is one line: how bad it is, what was checked, what was found, what to do."""
    app = make_app(**_settings(shared_redis))
    arguments = ["sse", "doctor", "--url", _at(site).replace("/stream", "/nowhere")]
    done = app.test_cli_runner().invoke(args=arguments)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0] == f"ok    url: {shared_redis.url}"
    assert lines[-1] == (
        "fail  status: 404 NOT FOUND - give the URL of the stream, which `flask routes` shows"
    )


def test_output_that_is_closed(tmp_path: Path, shared_redis: RedisServer) -> None:
    """When its output is closed, it ends silently."""
    reading, writing = os.pipe()
    os.close(reading)
    settings = _settings(shared_redis)
    with flask_command(tmp_path, "sse", "doctor", settings=settings, stdout=writing) as command:
        os.close(writing)
        command.wait_end()
        assert command.errors == []


def test_buffering(examine: Examine, proxies: Proxies) -> None:
    """A proxy that buffers is found, though the server has opened the stream."""
    findings = examine("--url", proxies["buffering"], "--patience", "5")
    assert _bad(findings) == {"buffering": "fail"}
    _, found, remedy = findings["buffering"]
    assert found.startswith("the server has opened the stream, but nothing arrived within 5 s")
    assert "proxy_buffering off" in remedy


def test_compression(examine: Examine, proxies: Proxies) -> None:
    """A proxy that compresses is found."""
    findings = examine("--url", proxies["gzip"], "--patience", "1")
    assert findings["compression"][0] == "fail"
    assert "with gzip" in findings["compression"][1]
    assert "gzip_types" in findings["compression"][2]


def test_timeout(examine: Examine, proxies: Proxies) -> None:
    """A proxy that closes connections before there is a comment is found."""
    findings = examine("--url", proxies["timeout"], SSE_KEEPALIVE=15)
    assert _bad(findings) == {"keep-alive": "fail"}
    _, found, remedy = findings["keep-alive"]
    silence = re.match(r"the connection was closed after (\d+\.\d) s of silence", found)
    assert silence
    # Not after the 15 s of the server's own comments.
    assert float(silence[1]) < 15
    assert "proxy_read_timeout" in remedy


def test_limit_of_connections(examine: Examine, proxies: Proxies) -> None:
    """A proxy that allows a client too few streams is found."""
    findings = examine("--url", proxies["limit_conn"])
    assert _bad(findings) == {"several streams": "fail"}
    _, found, remedy = findings["several streams"]
    assert "number 2 is answered with 503" in found
    assert "limit_conn" in remedy


@pytest.mark.parametrize("by", ["somebody's stream", "the doctor's stream"])
def test_blocked_worker(
    examine: Examine, tmp_path: Path, shared_redis: RedisServer, channel: str, by: str
) -> None:
    """A worker that a stream blocks is found, even if another client has opened that stream."""
    settings = _settings(shared_redis, SSE_DIRECT=False)
    with servers.gunicorn(tmp_path, *WORKERS["sync"], settings=settings) as blocked:
        url = _at(blocked)
        if by == "the doctor's stream":
            findings = examine("--url", url, "--patience", "5")
            assert _bad(findings) == {"several streams": "fail"}
            assert "the open ones block the server" in findings["several streams"][1]
            return
        with StreamClient(blocked.port, channel) as client:
            client.open()
            findings = examine("--url", url, "--patience", "5")
        assert _bad(findings) == {"answer": "fail"}
        _, found, remedy = findings["answer"]
        assert "its workers may all be blocked" in found
        assert "gunicorn" in remedy


def test_lost_cursor(examine: Examine, proxies: Proxies) -> None:
    """A proxy that drops Last-Event-ID is found."""
    arguments = ("--url", proxies["cursor"], "--channel", "logged.x", "--patience", "10")
    findings = examine(*arguments, SSE_HISTORY=_HISTORY)
    assert _bad(findings) == {"Last-Event-ID": "fail"}


def test_headers(examine: Examine, proxies: Proxies) -> None:
    """A proxy that allows caching is found, and so is the permission that a page needs."""
    allowed, forbidden = "https://app.example", "https://other.example"
    findings = examine("--url", proxies["headers"], "--origin", allowed)
    assert _bad(findings) == {"caching": "warn"}
    assert findings["CORS"][1] == f"pages of {allowed} may connect, without cookies"
    findings = examine("--url", proxies["headers"], "--origin", forbidden)
    assert _bad(findings) == {"caching": "warn", "CORS": "fail"}
    assert findings["CORS"][1].endswith(f"Access-Control-Allow-Origin is {allowed}")


def test_redirects(examine: Examine, proxies: Proxies) -> None:
    """A redirect to the stream costs time, and a redirect to a page ends an EventSource."""
    moved = proxies["moved"].replace("/stream", "/old")
    assert _bad(examine("--url", moved)) == {"redirect": "warn"}
    findings = examine("--url", proxies["login"])
    assert findings["connection"][0] == "fail"
    assert findings["connection"][1].endswith("redirects more than 20 times")


@pytest.mark.parametrize(
    ("path", "check", "found"),
    [
        ("/", "content type", "text/html instead of text/event-stream"),
        ("/nowhere", "status", "404 NOT FOUND"),
    ],
)
def test_no_stream(examine: Examine, site: Site, path: str, check: str, found: str) -> None:
    """A response that is not a stream is reported."""
    findings = examine("--url", f"http://{LOOPBACK}:{site.port}{path}")
    assert findings[check][0] == "fail"
    assert findings[check][1].startswith(found)


def test_server_error(examine: Examine, proxies: Proxies) -> None:
    """A 5xx, after which an EventSource gives up, is found."""
    findings = examine("--url", proxies["error"])
    assert _bad(findings) == {"status": "fail"}
    assert "an EventSource gives up for good" in findings["status"][2]


def test_no_server(examine: Examine) -> None:
    """A missing server is found, and so is an invalid URL."""
    findings = examine("--url", f"http://{LOOPBACK}:{free_port()}/stream")
    assert "refused" in findings["connection"][1]
    assert "is not a URL" in examine("--url", "stream")["connection"][1]
    assert "Invalid IPv6 URL" in examine("--url", "http://[::1/stream")["connection"][1]


def test_tls(examine: Examine, proxies: Proxies, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that browsers refuse is found, and whether HTTP/2 is offered."""
    findings = examine("--url", proxies["tls"])
    assert "certificate verify failed" in findings["connection"][1]
    findings = examine("--url", proxies["login"].replace("http:", "https:"))
    assert "use http://" in findings["connection"][2]
    monkeypatch.setenv("SSL_CERT_FILE", proxies.certificate)
    assert _bad(examine("--url", proxies["tls"])) == {"HTTP version": "warn"}
    findings = examine("--url", proxies["http2"])
    assert _bad(findings) == {}
    assert findings["HTTP version"][1] == "HTTP/2 is offered to browsers"


@pytest.mark.long
def test_full_server(examine: Examine, tmp_path: Path, shared_redis: RedisServer) -> None:
    """A server at its limit of streams is found, from the first stream on."""
    settings = _settings(shared_redis, SSE_MAX_CLIENTS=2)
    with servers.gunicorn(tmp_path, *WORKERS["sync"], settings=settings) as full:
        url = _at(full)
        findings = examine("--url", url)
        assert _bad(findings) == {"several streams": "fail"}
        assert "number 3 ends at once" in findings["several streams"][1]
        with StreamClient(full.port) as one, StreamClient(full.port) as two:
            one.open()
            two.open()
            findings = examine("--url", url)
        assert _bad(findings) == {"first byte": "fail"}
        assert "SSE_MAX_CLIENTS" in findings["first byte"][2]


@pytest.mark.long
def test_server_that_reads_streams(
    examine: Examine, tmp_path: Path, shared_redis: RedisServer
) -> None:
    """A stream that is not handed over is recognized by its connection."""
    settings = _settings(shared_redis, SSE_DIRECT=False)
    with servers.gunicorn(tmp_path, "--threads", "8", settings=settings) as site:
        assert _bad(examine("--url", _at(site))) == {"server": "warn"}
    with servers.other("flask")(tmp_path, settings=settings) as site:
        findings = examine("--url", _at(site))
        assert _bad(findings) == {"server": "warn"}
        assert "Flask's own server" in findings["server"][1]


def test_other_redis(examine: Examine, site: Site, redis_server: RedisServer) -> None:
    """A server that listens to another Redis is found."""
    findings = examine("--url", _at(site), REDIS_URL=redis_server.url)
    assert _bad(findings) == {"events": "fail"}
    assert "the same REDIS_URL" in findings["events"][2]


@pytest.mark.long
def test_server_in_memory(examine: Examine, tmp_path: Path) -> None:
    """With `memory://`, one worker causes a warning, and several are a fault."""
    settings = {"REDIS_URL": "memory://", "SSE_KEEPALIVE": _KEEPALIVE}
    with servers.gunicorn(tmp_path, *WORKERS["sync"], settings=settings) as site:
        findings = examine("--url", _at(site), REDIS_URL="memory://")
        assert _bad(findings) == {"url": "warn", "buffering": "warn"}
    with servers.gunicorn(tmp_path, "--workers", "2", settings=settings) as site:
        findings = examine("--url", _at(site), REDIS_URL="memory://")
        assert _bad(findings) == {"url": "warn", "status": "fail"}
        assert "with memory:// start one worker" in findings["status"][2]


def test_workers_in_memory(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `memory://`, an environment that starts several workers is a fault."""
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    assert _bad(examine(REDIS_URL="memory://")) == {"url": "fail"}
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--preload --workers=1")
    assert _bad(examine(REDIS_URL="memory://")) == {"url": "warn"}


@pytest.mark.parametrize(
    ("settings", "check", "found"),
    [
        ({"REDIS_URL": None}, "url", "neither SSE_REDIS_URL nor REDIS_URL is set"),
        ({"REDIS_URL": "redis://:x@host/none"}, "url", "must be a number, not 'none'"),
        ({"REDIS_URL": "redis://:x[y@host"}, "url", "is not a URL that redis-py can read"),
        ({"REDIS_URL": "amqp://host"}, "settings", "REDIS_URL must begin with one of"),
        ({"SSE_RETRY": "soon"}, "settings", "SSE_RETRY must be an int"),
    ],
)
def test_wrong_settings(
    examine: Examine, settings: dict[str, object], check: str, found: str
) -> None:
    """A missing or invalid setting is named."""
    findings = examine(**settings)
    assert _bad(findings) == {check: "fail"}
    assert found in findings[check][1]


def test_doubtful_settings(examine: Examine) -> None:
    """Late or missing comments are found, and so is a limit of streams above that of open files."""
    assert _bad(examine(SSE_KEEPALIVE=15)) == {}
    findings = examine(SSE_KEEPALIVE=30)
    assert _bad(findings) == {"keep-alive setting": "warn"}
    assert "Next.js's rewrites after 30 s" in findings["keep-alive setting"][1]
    assert "Heroku" not in findings["keep-alive setting"][1]
    findings = examine(SSE_KEEPALIVE=None, SSE_MAX_CLIENTS=10**7)
    assert _bad(findings) == {"keep-alive setting": "warn", "streams": "warn"}
    assert "ulimit -n" in findings["streams"][2]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("SSE_RETRY_TIMEOUT", "SSE_RETRY_TIMEOUT (did you mean SSE_RETRY?)"),
        ("SSE_KEEP_ALIVE", "SSE_KEEP_ALIVE (did you mean SSE_KEEPALIVE?)"),
        ("SSE_MAX_CONNECTIONS", "SSE_MAX_CONNECTIONS (did you mean SSE_MAX_CLIENTS?)"),
        ("SSE_URL", "SSE_URL (did you mean SSE_REDIS_URL?)"),
        ("sse_history_ttl", "sse_history_ttl (did you mean SSE_HISTORY_TTL?)"),
        ("SSE_KMS_KEY_ID", "SSE_KMS_KEY_ID"),
        ("SSE_PORT", "SSE_PORT"),
    ],
)
def test_unknown_settings(make_app: Callable[..., Flask], key: str, said: str) -> None:
    """A setting that does not exist is named, with the nearest one if it is near."""
    app = make_app(REDIS_URL="memory://", SSE_RETRY=None, ASSET_KEEPALIVE=1, **{key: 1})
    findings = _run(app)
    assert _bad(findings) == {"url": "warn", "settings": "warn"}
    assert findings["settings"][1] == f"Flask-SSE has no setting {said}"


def test_secrets(examine: Examine, tmp_path: Path) -> None:
    """A wrong password is found, and passwords are not shown."""
    server = RedisServer(tmp_path, requirepass="swordfish")
    server.start()
    try:
        for login in ("", ":tuna@"):
            findings = examine(REDIS_URL=server.url.replace("://", f"://{login}"))
            assert _bad(findings) == {"redis": "fail"}
            assert "redis://user:password@host" in findings["redis"][2]
            assert "tuna" not in str(findings)
        findings = examine(REDIS_URL=server.url.replace("://", "://:swordfish@") + "/3")
        assert _bad(findings) == {}
        assert findings["url"][1] == f"{server.url}/3"
        assert "swordfish" not in str(findings)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("rules", "check", "level"),
    [
        (("+subscribe", "&*"), "publish", "fail"),
        (("+publish", "&*"), "subscribe", "fail"),
        (("+publish", "+subscribe", "&other"), "subscribe", "fail"),
        (("+@all", "-info", "&*"), "redis version", "warn"),
    ],
)
def test_permissions(
    examine: Examine, redis_server: RedisServer, rules: tuple[str, ...], check: str, level: str
) -> None:
    """A user who may not publish, subscribe or ask is found."""
    user = ("ACL", "SETUSER", "app", "on", ">secret", "+ping", "+info", "+client", "+hello")
    redis_server.admin.execute_command(*user, *rules)
    findings = examine(REDIS_URL=redis_server.url.replace("://", "://app:secret@"))
    assert _bad(findings) == {check: level}


def test_stream_without_permission_to_publish(
    examine: Examine, site: Site, shared_redis: RedisServer
) -> None:
    """If nothing can be published, everything else about a stream is checked."""
    user = ("ACL", "SETUSER", "mute", "on", ">secret", "+@all", "-publish", "&*", "~*")
    shared_redis.admin.execute_command(*user)
    url = shared_redis.url.replace("://", "://mute:secret@")
    findings = examine("--url", _at(site), REDIS_URL=url)
    assert _bad(findings) == {"publish": "fail", "buffering": "warn"}


def test_permission_for_the_control_channel(examine: Examine, redis_server: RedisServer) -> None:
    """A user who may not use the channel that ends streams is found, with the rule to add."""
    user = ("ACL", "SETUSER", "app", "on", ">secret", "+@all", "&app.*", "~*")
    redis_server.admin.execute_command(*user)
    url = redis_server.url.replace("://", "://app:secret@")
    findings = examine("--channel", "app.x", "--patience", "30", REDIS_URL=url)
    assert _bad(findings) == {"control channel": "warn"}
    assert "ACL SETUSER <user> &flask-sse:control, or leave it" in findings["control channel"][2]


def test_permissions_of_history(examine: Examine, redis_server: RedisServer) -> None:
    """A user who may not run the scripts of history is found."""
    user = ("ACL", "SETUSER", "app", "on", ">secret", "+@all", "-@scripting", "&*", "~*")
    redis_server.admin.execute_command(*user)
    url = redis_server.url.replace("://", "://app:secret@")
    findings = examine("--patience", "30", REDIS_URL=url, SSE_HISTORY=10)
    assert _bad(findings) == {"publish": "fail", "history": "fail"}
    assert "EVALSHA" in findings["history"][1]


def test_permissions_of_presence(examine: Examine, redis_server: RedisServer) -> None:
    """A user who may not run the scripts of presence is found; nothing is left behind."""
    assert _bad(examine(REDIS_URL=redis_server.url, SSE_PRESENCE=["*"])) == {}
    assert redis_server.admin.keys() == []
    user = ("ACL", "SETUSER", "app", "on", ">secret", "+@all", "-hgetall", "&*", "~*")
    redis_server.admin.execute_command(*user)
    url = redis_server.url.replace("://", "://app:secret@")
    findings = examine("--patience", "30", REDIS_URL=url, SSE_PRESENCE=["*"])
    assert _bad(findings) == {"presence": "fail"}
    assert "+hgetall" in findings["presence"][1]


def test_silent_about_itself(examine: Examine, redis_server: RedisServer) -> None:
    """Information that Redis withholds causes a warning, and other checks do not fail."""
    user = ("ACL", "SETUSER", "app", "on", ">secret", "+@all", "-info", "-psubscribe", "&*", "~*")
    redis_server.admin.execute_command(*user)
    url = redis_server.url.replace("://", "://app:secret@")
    findings = examine("--patience", "30", REDIS_URL=url, SSE_HISTORY=_HISTORY)
    assert _bad(findings) == dict.fromkeys(["redis version", "redis memory", "publishers"], "warn")


def test_event_that_is_lost(shared_redis: RedisServer) -> None:
    """An event that is published and does not arrive is found."""

    class Lost(ServerSentEventsBlueprint):
        def publish(self, *args: object, **kwargs: object) -> int:
            del args, kwargs
            return 1

    app = Flask("lost", static_folder=None)
    app.config.update(_settings(shared_redis))
    app.register_blueprint(Lost("lost", __name__))
    findings = _run(app, "--patience", "5", group="lost")
    assert _bad(findings) == {"publish": "fail"}
    assert "has not arrived" in findings["publish"][1]


def test_memory_without_eviction(examine: Examine, redis_server: RedisServer) -> None:
    """A Redis that refuses writes when it is full loses no history, and is not a fault."""
    redis_server.admin.config_set("maxmemory", "100mb")
    findings = examine("--patience", "30", REDIS_URL=redis_server.url, SSE_HISTORY=_HISTORY)
    assert _bad(findings) == {}
    assert "publishing raises an error" in findings["redis memory"][1]


def test_evictions(examine: Examine, redis_server: RedisServer) -> None:
    """Histories that may be evicted are found."""
    redis_server.admin.config_set("maxmemory", "100mb")
    redis_server.admin.config_set("maxmemory-policy", "allkeys-lru")
    findings = examine("--patience", "30", REDIS_URL=redis_server.url, SSE_HISTORY=_HISTORY)
    assert _bad(findings) == {"redis memory": "warn"}
    assert "allkeys-lru" in findings["redis memory"][1]


@pytest.mark.parametrize(
    ("most", "bound", "history", "level", "found"),
    [
        (20, 3, None, "ok", "uses up to 4"),
        (20, 3, _HISTORY, "ok", "uses up to 5"),
        (20, None, None, "warn", "uses up to 51"),
        (52, None, None, "warn", "uses up to 51"),
        (53, None, None, "ok", "uses up to 51"),
        (4, 50, _HISTORY, "fail", "uses up to 52"),
    ],
)
def test_connections_of_redis(
    examine: Examine,
    redis_server: RedisServer,
    most: int,
    bound: int | None,
    history: object,
    level: str,
    found: str,
) -> None:
    """What counts is how many connections this application uses."""
    redis_server.admin.config_set("maxclients", most)
    url = redis_server.url if bound is None else f"{redis_server.url}?max_connections={bound}"
    findings = examine(REDIS_URL=url, SSE_HISTORY=history)
    assert findings["redis connections"][0] == level
    # The doctor and this test.
    assert (
        findings["redis connections"][1] == f"2 of {most} are in use; a process of the app {found}"
    )
    if level == "warn":
        assert "?max_connections=" in findings["redis connections"][2]


def test_silent_redis(examine: Examine, redis_server: RedisServer) -> None:
    """A Redis that is stopped, or does not answer, is found in time."""
    redis_server.freeze()
    try:
        findings = examine("--patience", "0.5", REDIS_URL=redis_server.url)
    finally:
        redis_server.thaw()
    assert _bad(findings) == {"redis": "fail"}
    assert findings["redis"][1] == "it does not answer in time"
    redis_server.stop()
    assert "there is no connection" in examine(REDIS_URL=redis_server.url)["redis"][1]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("logged.news", "without history to logged.news"),
        ("news", "with history to news, which has no history here"),
    ],
)
def test_publishers_of_another_opinion(
    examine: Examine,
    make_app: Callable[..., Flask],
    redis_server: RedisServer,
    name: str,
    found: str,
) -> None:
    """A process that publishes without history where there is one is found, and the reverse."""
    history = {} if name == "logged.news" else {"news": 10}
    app = make_app(REDIS_URL=redis_server.url, SSE_HISTORY=history)
    done = ThreadEvent()

    def publish() -> None:
        with app.app_context():
            while not done.wait(0.05):
                sse.publish("news", channel=name)

    publisher = Thread(target=publish)
    publisher.start()
    try:
        findings = examine(REDIS_URL=redis_server.url, SSE_HISTORY=_HISTORY)
    finally:
        done.set()
        publisher.join()
    assert _bad(findings) == {"publishers": "warn"}
    assert found in findings["publishers"][1]


def test_overridden_redis(redis_server: RedisServer) -> None:
    """The doctor checks the Redis that a blueprint provides."""

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            return redis_server.admin

    app = Flask("own")
    app.register_blueprint(Own("own", __name__))
    done = app.test_cli_runner().invoke(args=["own", "doctor"])
    assert done.exit_code == 0
    assert "ok    url: an overridden redis provides its own\n" in done.stdout
    assert "ok    publish: an event arrives" in done.stdout


def test_connections_of_an_overridden_redis(redis_server: RedisServer) -> None:
    """The client's own pool is what limits them, if anything does."""

    class Own(ServerSentEventsBlueprint):
        most: int | None = None

        @property
        def redis(self) -> redis.StrictRedis:
            return client

    app = Flask("own", static_folder=None)
    app.register_blueprint(Own("own", __name__))
    for most, found in ((7, "up to 8"), (1 << 31, "at least 2")):
        client = redis.StrictRedis.from_url(redis_server.url, max_connections=most)
        with client:
            findings = _run(app, group="own")
        assert findings["redis connections"][0] == "ok"
        assert findings["redis connections"][1].endswith(f"a process of the app uses {found}")


class _Broken(ServerSentEventsBlueprint):
    """Raises an error that nobody has foreseen, where its name says."""

    @property
    def redis(self) -> redis.StrictRedis:
        if self.name == "redis":
            raise ArithmeticError("broken")
        return super().redis

    def publish(self, *args: Any, **kwargs: Any) -> int:
        if self.name == "publish":
            raise ArithmeticError
        return super().publish(*args, **kwargs)


@pytest.mark.parametrize(
    ("name", "check", "found"),
    [
        ("redis", "url", "ArithmeticError: broken (in test_doctor.py, line "),
        ("publish", "publish", "ArithmeticError (in test_doctor.py, line "),
    ],
)
def test_an_exception_in_a_check(
    shared_redis: RedisServer, site: Site, name: str, check: str, found: str
) -> None:
    """It is the finding of this check, and the other checks are made."""
    app = Flask("broken", static_folder=None)
    app.config.update(_settings(shared_redis))
    app.register_blueprint(_Broken(name, __name__))
    findings = _run(app, "--url", _at(site), group=name)
    assert _bad(findings) == {check: "fail", "buffering": "warn"}
    assert findings[check][1].startswith(f"this check could not be made: {found}")
    assert list(findings)[-2:] == ["several streams", "keep-alive"]


@pytest.mark.parametrize("options", [None, {"nonsense": 1}])
def test_a_client_that_can_not_be_used(shared_redis: RedisServer, site: Site, options: Any) -> None:
    """Whatever an overridden redis does wrong is a finding, and the stream is checked."""

    class Own(ServerSentEventsBlueprint):
        @property
        def redis(self) -> redis.StrictRedis:
            client = redis.StrictRedis()
            client.connection_pool.connection_kwargs = options
            return client

    app = Flask("own", static_folder=None)
    app.config.update(_settings(shared_redis))
    app.register_blueprint(Own("own", __name__))
    findings = _run(app, "--url", _at(site), group="own")
    assert _bad(findings) == {"redis": "fail", "buffering": "warn"}
    assert findings["redis"][1].startswith("this check could not be made: ")
    assert findings["keep-alive"][0] == "ok"


def test_a_setting_that_can_not_be_read(make_app: Callable[..., Flask]) -> None:
    """An exception while the settings are read is a finding too."""

    class History(dict[str, int]):
        def items(self) -> Any:
            raise LookupError("broken")

    findings = _run(make_app(REDIS_URL="memory://", SSE_HISTORY=History(), SSE_HISTRY=1))
    assert list(findings) == ["settings"]
    assert findings["settings"][1].startswith("this check could not be made: LookupError: broken")


def test_a_stream_that_breaks(examine: Examine, shared_redis: RedisServer, channel: str) -> None:
    """If the stream can't be read any longer, the checks say why, and are all made."""
    zipped = {"Cache-Control": "no-store, no-transform", "Content-Encoding": "gzip"}
    compress = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    opening = compress.compress(b":\n") + compress.flush(zlib.Z_SYNC_FLUSH)

    with listening(shared_redis.admin, channel) as listener:

        def breaking(request: BaseHTTPRequestHandler) -> None:
            streaming(opening, headers=zipped)(request)
            listener.payloads(2)
            # No block of deflate begins like this.
            request.wfile.write(b"\xff" * 9)
            request.connection.recv(1)

        with serving(breaking, streaming(opening, stays_open=True, headers=zipped)) as (url, _):
            findings = examine("--url", url, "--channel", channel)
    assert _bad(findings) == {
        "compression": "fail",
        "HTTP version": "warn",
        "buffering": "fail",
        "keep-alive": "fail",
    }
    assert findings["buffering"][1].startswith("an event can't be read: HTTPException: ")
    assert findings["keep-alive"][1].startswith("it can't be read: HTTPException: ")


def test_an_exception_while_publishing(shared_redis: RedisServer, site: Site) -> None:
    """If Redis is lost on the way, the checks that need it say so, and the others are made."""

    class Lost(ServerSentEventsBlueprint):
        published = 0

        def publish(self, *args: Any, **kwargs: Any) -> int:
            self.published += 1
            if self.published > 1:
                raise redis.ConnectionError("lost")
            return super().publish(*args, **kwargs)

    app = Flask("lost", static_folder=None)
    app.config.update(_settings(shared_redis, SSE_HISTORY=_HISTORY))
    app.register_blueprint(Lost("lost", __name__))
    url = f"{_at(site)}?channel=logged.lost"
    findings = _run(app, "--url", url, group="lost")
    assert _bad(findings) == {"buffering": "fail", "Last-Event-ID": "fail"}
    for check in ("buffering", "Last-Event-ID"):
        assert "could not be made: ConnectionError: lost (in test_doctor.py" in findings[check][1]
    assert "several streams" in findings


def test_overridden_redis_of_another_kind() -> None:
    """A client without a pool is reported, and the other settings are checked."""

    class Odd(ServerSentEventsBlueprint):
        @property
        def redis(self) -> Any:
            return object()

    app = Flask("odd", static_folder=None)
    app.register_blueprint(Odd("odd", __name__))
    findings = _run(app, group="odd")
    assert _bad(findings) == {"url": "warn"}
    assert "of the type object" in findings["url"][1]


def test_who_may_not_ask_for_listeners(
    examine: Examine, proxies: Proxies, site: Site, shared_redis: RedisServer
) -> None:
    """If Redis does not report listeners, a fault is found, but not its location."""
    user = ("ACL", "SETUSER", "shy", "on", ">secret", "+@all", "-pubsub", "&*", "~*")
    shared_redis.admin.execute_command(*user)
    url = shared_redis.url.replace("://", "://shy:secret@")
    assert _bad(examine("--url", _at(site), REDIS_URL=url)) == {}
    findings = examine("--url", proxies["buffering"], "--patience", "5", REDIS_URL=url)
    assert _bad(findings) == {"answer": "fail"}
    assert "something in between holds the answer back" in findings["answer"][1]


@pytest.mark.parametrize("option", ["--origin", "--header"])
def test_options_of_a_url(make_app: Callable[..., Flask], option: str) -> None:
    """Options that require a URL are refused without one."""
    done = make_app().test_cli_runner().invoke(args=["sse", "doctor", option, "x:y"])
    assert done.exit_code == 2
    assert "require --url" in done.stderr
