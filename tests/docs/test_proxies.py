"""The configurations that the documentation recommends, in front of a real gevent worker."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.processes import LOOPBACK, NGINX, find_program, free_port, running
from tests.support.redis_server import RedisServer
from tests.support.servers import Site

_CONFIGURATIONS: Final = servers.ROOT / "docs" / "examples" / "deployment"
_KEEPALIVE: Final = 0.5
_EVENTS: Final = 20

_APACHE: Final = """
ServerRoot {folder}
PidFile {folder}/apache.pid
Mutex file:{folder}
ErrorLog /dev/stderr
Listen {address}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule setenvif_module /usr/lib/apache2/modules/mod_setenvif.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
{site}
"""


class Place(NamedTuple):
    """Where a proxy runs, and for whom."""

    folder: Path
    port: int
    app_port: int

    @property
    def address(self) -> str:
        """Where the proxy listens."""
        return f"{LOOPBACK}:{self.port}"

    def read(self, name: str, listen: str, replacement: str) -> str:
        """Return a configuration of the documentation with other ports."""
        text = (_CONFIGURATIONS / name).read_text()
        for old, new in ((listen, replacement), ("127.0.0.1:8000", f"{LOOPBACK}:{self.app_port}")):
            assert old in text
            text = text.replace(old, new)
        return text

    def write(self, name: str, text: str) -> str:
        """Write a configuration, and return its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


def _nginx(place: Place) -> list[str]:
    site = place.read("nginx.conf", "listen 80;", f"listen {place.address};")
    config = place.write("nginx.conf", NGINX.format(site=site))
    return [find_program("nginx"), "-p", str(place.folder), "-c", config, "-e", "stderr"]


def _apache(place: Place) -> list[str]:
    site = place.read("apache.conf", "*:80", place.address)
    text = _APACHE.format(folder=place.folder, address=place.address, site=site)
    return [find_program("apache2"), "-D", "FOREGROUND", "-f", place.write("apache.conf", text)]


def _haproxy(place: Place) -> list[str]:
    text = place.read("haproxy.cfg", "bind :80", f"bind {place.address}")
    return [find_program("haproxy"), "-db", "-f", place.write("haproxy.cfg", text)]


def _caddy(place: Place) -> list[str]:
    text = place.read("Caddyfile", ":80 {", f":{place.port} {{\n\tbind {LOOPBACK}")
    config = place.write("Caddyfile", "{\n\tadmin off\n}\n" + text)
    return [find_program("caddy"), "run", "--adapter", "caddyfile", "--config", config]


_PROXIES: Final[dict[str, Callable[[Place], list[str]]]] = {
    "nginx": _nginx,
    "Apache": _apache,
    "HAProxy": _haproxy,
    "Caddy": _caddy,
}


@pytest.fixture(scope="module")
def app(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a site under gunicorn's gevent worker, with frequent comments."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_KEEPALIVE": _KEEPALIVE}
    with servers.gunicorn(tmp_path_factory.mktemp("app"), settings=settings) as site:
        yield site


@pytest.fixture(params=_PROXIES)
def proxy(request: pytest.FixtureRequest, app: Site, tmp_path: Path) -> Iterator[Site]:
    """Return the same site behind a proxy."""
    place = Place(tmp_path, free_port(), app.port)
    command = _PROXIES[request.param](place)
    # Caddy keeps files below its user's home.
    home = {name: str(tmp_path) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    with running(command, place.port, tmp_path / "proxy.log", env=home) as process:
        yield Site(process)


def test_stream_passes_the_proxy(proxy: Site, shared_redis: RedisServer, channel: str) -> None:
    """First bytes, comments and single events arrive at once, and a client's end as well."""
    with StreamClient(proxy.port, channel) as client:
        client.open(2)
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
        delays: list[float] = []
        for number in range(_EVENTS):
            proxy.publish(str(number), channel)
            published = time.monotonic()
            # A proxy that buffers would keep such a small event to itself.
            client.wait_events(number + 1, 2)
            delays.append(time.monotonic() - published)
        # However busy this machine is, at least one event was as fast as it can be; a proxy
        # that waits for more to come delays each by 40 or 200 ms.
        assert min(delays) < 0.03
        client.wait_comments(client.parser.comments + 3, 3 * _KEEPALIVE + 2)
        assert [event.data for event in client.events] == [str(n) for n in range(_EVENTS)]
        assert shared_redis.listeners(channel) == 1
    shared_redis.wait_listeners(0, channel)


def test_every_configuration_is_tried() -> None:
    """What the documentation shows for a proxy is what is run here."""
    shown = set(re.findall(r"examples/deployment/(\S+)", _page("deployment.rst")))
    others = {"gunicorn.conf.py", "app.service", "Containerfile"}
    assert shown - others == {"nginx.conf", "apache.conf", "haproxy.cfg", "Caddyfile"}


def _page(name: str) -> str:
    return (servers.ROOT / "docs" / name).read_text()
