"""The doctor and the longest id, with servers and proxies that limit the size of requests."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from flask_sse._doctor import long_id
from flask_sse._doctor.finding import Finding
from tests.support import servers
from tests.support.nginx import nginx
from tests.support.processes import LOOPBACK, find_program, free_port, running
from tests.support.redis_server import RedisServer
from tests.support.servers import WORKERS, Site
from tests.support.waiting import PATIENCE

_NGINX: Final = """
{limits}
server {{
    listen {address};
    location / {{ proxy_pass http://{app}; }}
}}
"""
_APACHE: Final = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
Mutex file:{folder}
ErrorLog /dev/stderr
Listen {address}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
{limits}
ProxyPass / http://{app}/ flushpackets=on
"""
_HAPROXY: Final = """
global
    {limits}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen web
    bind {address}
    server app {app}
"""
_CONFIGURATIONS: Final = {"nginx": _NGINX, "apache2": _APACHE, "haproxy": _HAPROXY}
_OPTIONS: Final = {"apache2": ("-D", "FOREGROUND", "-f"), "haproxy": ("-db", "-f")}

Examine = Callable[[str, str], list[Finding]]


@pytest.fixture(scope="module")
def site(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a site under gunicorn, with its usual limits."""
    folder = tmp_path_factory.mktemp("site")
    with _serving("gunicorn", "", shared_redis, folder) as running_site:
        yield running_site


@pytest.fixture
def examine(site: Site, shared_redis: RedisServer, tmp_path: Path) -> Examine:
    """Return a function that runs a server with some limits, and examines it."""

    def run(server: str, limits: str) -> list[Finding]:
        if server in _CONFIGURATIONS:
            with _proxied(server, limits, site, tmp_path) as port:
                return _examine(port)
        with _serving(server, limits, shared_redis, tmp_path) as limited:
            return _examine(limited.port)

    return run


@contextmanager
def _proxied(proxy: str, limits: str, site: Site, folder: Path) -> Iterator[int]:
    port = free_port()
    address, app = f"{LOOPBACK}:{port}", f"{LOOPBACK}:{site.port}"
    text = _CONFIGURATIONS[proxy].format(address=address, app=app, folder=folder, limits=limits)
    config = folder / "proxy.conf"
    config.write_text(text)
    command = [find_program(proxy), *_OPTIONS.get(proxy, ()), str(config)]
    with running(nginx(folder, text) if proxy == "nginx" else command, port, folder / "proxy.log"):
        yield port


@contextmanager
def _serving(server: str, limits: str, redis: RedisServer, folder: Path) -> Iterator[Site]:
    # Where the server reads the streams, a comment shows it that the client has left.
    settings = {"REDIS_URL": redis.url, "SSE_HISTORY": 10, "SSE_KEEPALIVE": 0.5}
    if server == "gunicorn":
        options = (*WORKERS["gthread"], *limits.split())
        with servers.gunicorn(folder, *options, settings=settings) as site:
            yield site
    else:
        with servers.other(server, *limits.split())(folder, settings=settings) as site:
            yield site


def _examine(port: int) -> list[Finding]:
    url = f"http://{LOOPBACK}:{port}/stream?channel=long"
    return [*long_id.examine(url, {}, PATIENCE)]


@pytest.mark.parametrize(
    "server",
    [
        "nginx",
        "uwsgi --threads",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("apache2", "haproxy", "gunicorn")
        ),
    ],
)
def test_usual_limits(examine: Examine, shared_redis: RedisServer, server: str) -> None:
    """The longest id passes, and the stream with it ends at once."""
    assert [finding.found for finding in examine(server, "")] == [
        "an id of 1,024 bytes arrives in the header Last-Event-ID",
        "an id of 1,024 bytes arrives in the URL as last_event_id",
    ]
    shared_redis.wait_listeners(0, "long")


@pytest.mark.parametrize(
    ("server", "limits", "answer", "names"),
    [
        (
            "nginx",
            "client_header_buffer_size 1k; large_client_header_buffers 4 1k;",
            "400 Bad Request|414 Request-URI Too Large",
            ("large_client_header_buffers",) * 2,
        ),
        ("uwsgi --threads", "--buffer-size 2000", r"missing \(.*\)", ("buffer-size",) * 2),
        pytest.param(
            "apache2",
            "LimitRequestFieldSize 1030\nLimitRequestLine 1000",
            "400 Bad Request|414 Request-URI Too Long",
            ("LimitRequestFieldSize", "LimitRequestLine"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            "haproxy",
            "tune.bufsize 2048\n    tune.maxrewrite 256",
            "400 Bad request",
            ("tune.bufsize",) * 2,
            marks=pytest.mark.long,
        ),
        pytest.param(
            "gunicorn",
            "--limit-request-field_size 1030 --limit-request-line 1000",
            # Its older versions answer 400.
            "400 Bad Request|431 Request Header Fields Too Large|414 .+",
            ("--limit-request-field_size", "--limit-request-line"),
            marks=pytest.mark.long,
        ),
    ],
    ids=["nginx", "uwsgi", "apache2", "haproxy", "gunicorn"],
)
def test_limits_that_are_too_low(
    examine: Examine, server: str, limits: str, answer: str, names: tuple[str, str]
) -> None:
    """The answer is shown, with the name of the limit."""
    for finding, name in zip(examine(server, limits), names, strict=True):
        assert finding.level == "warn"
        assert re.match(
            rf"the answer to an id of 1,024 bytes in the (.*) is ({answer}); a stream",
            finding.found,
        )
        assert name in finding.remedy


def test_limits_that_are_lower_still(examine: Examine) -> None:
    """If other headers alone are too large, the limit is not said to be about ids."""
    limits = "client_header_buffer_size 512; large_client_header_buffers 4 900;"
    for finding in examine("nginx", limits):
        assert finding.level == "warn"
        assert re.match("the answer to a short id in the .* is 400 Bad Request", finding.found)
