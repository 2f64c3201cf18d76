"""The configurations that the documentation recommends, in front of a real gevent worker."""

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest
import trustme

from tests.support import longest_id, servers
from tests.support.client import StreamClient
from tests.support.nginx import documented_site, nginx
from tests.support.parser import Event, Parser
from tests.support.processes import LOOPBACK, Process, find_program, free_port, running
from tests.support.redis_server import RedisServer
from tests.support.servers import Site
from tests.support.waiting import PATIENCE

_CONFIGURATIONS: Final = servers.ROOT / "docs" / "examples" / "deployment"
_EVENTS: Final = 20

_APACHE: Final = """
ServerRoot {folder}
PidFile {folder}/apache.pid
Mutex file:{folder}
ErrorLog /dev/stderr
Listen {plain}
Listen {address}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule alias_module {modules}/mod_alias.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule setenvif_module {modules}/mod_setenvif.so
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule http2_module {modules}/mod_http2.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
{site}
"""
_APACHE_MODULES: Final = "/usr/lib/apache2/modules"


class Place(NamedTuple):
    """The folder and the ports of a proxy, and the port of its site."""

    folder: Path
    port: int
    plain_port: int
    app_port: int

    @property
    def address(self) -> str:
        """Where the proxy listens with TLS."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def plain(self) -> str:
        """Where it listens without."""
        return f"{LOOPBACK}:{self.plain_port}"

    def read(self, name: str, **replacements: str) -> str:
        """Return a configuration of the documentation with other ports and certificates."""
        text = (_CONFIGURATIONS / name).read_text()
        app = ("127.0.0.1:8000", f"{LOOPBACK}:{self.app_port}")
        for old, new in (app, *replacements.items()):
            assert old in text
            text = text.replace(old, new)
        return text.replace("/etc/ssl/example.org", str(self.folder))

    def write(self, name: str, text: str) -> str:
        """Write a configuration, and return its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


def _nginx(place: Place) -> list[str]:
    site = documented_site(place.app_port, place.port, place.plain_port, place.folder)
    return nginx(place.folder, site)


def _apache(place: Place) -> list[str]:
    site = place.read("apache.conf", **{"*:80": place.plain, "*:443": place.address})
    text = _APACHE.format(
        folder=place.folder,
        modules=_APACHE_MODULES,
        plain=place.plain,
        address=place.address,
        site=site,
    )
    return [find_program("apache2"), "-D", "FOREGROUND", "-f", place.write("apache.conf", text)]


def _haproxy(place: Place) -> list[str]:
    replacements = {"bind :80": f"bind {place.plain}", "bind :443": f"bind {place.address}"}
    text = place.read("haproxy.cfg", **replacements)
    return [find_program("haproxy"), "-db", "-f", place.write("haproxy.cfg", text)]


def _caddy(place: Place) -> list[str]:
    # It would get a certificate from elsewhere.
    folder = place.folder
    site = f"https://localhost:{place.port} {{\n\tbind {LOOPBACK}\n"
    site += f"\ttls {folder}/fullchain.pem {folder}/privkey.pem"
    text = place.read("Caddyfile", **{"example.org {": site})
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    config = place.write("Caddyfile", options + text)
    return [find_program("caddy"), "run", "--adapter", "caddyfile", "--config", config]


_PROXIES: Final[dict[str, Callable[[Place], list[str]]]] = {
    "nginx": _nginx,
    "Apache": _apache,
    "HAProxy": _haproxy,
    "Caddy": _caddy,
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return the issuer of the certificates."""
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """Return the context of a client that trusts these certificates, which may change it."""
    context = ssl.create_default_context()
    # pyOpenSSL, which one of its types is from, is not here.
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    return context


@pytest.fixture(scope="module")
def app(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a site under gunicorn's gevent worker, whose comments show when a client has left.

    Not all of them that are sent while a test waits would fill a proxy's buffer.
    """
    settings = {
        "REDIS_URL": shared_redis.url,
        "SSE_KEEPALIVE": 0.5,
        "SSE_HISTORY": {"most-*": 10},
    }
    folder = tmp_path_factory.mktemp("app")
    with servers.gunicorn(folder, app="tests.apps.several:app", settings=settings) as site:
        yield site


@pytest.fixture(scope="module", params=_PROXIES)
def proxy(
    request: pytest.FixtureRequest,
    app: Site,
    authority: trustme.CA,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Process]:
    """Return a proxy in front of that site."""
    folder = tmp_path_factory.mktemp("proxy")
    certificate = authority.issue_cert("localhost", "example.org")
    key, chain = certificate.private_key_pem, certificate.cert_chain_pems[0]
    key.write_to_path(folder / "privkey.pem")
    chain.write_to_path(folder / "fullchain.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    place = Place(folder, free_port(), free_port(), app.port)
    command = _PROXIES[request.param](place)
    # Caddy keeps files below its user's home.
    home = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    with running(command, place.port, folder / "proxy.log", env=home) as process:
        yield process


def test_stream_passes_the_proxy(
    proxy: Process, app: Site, tls: ssl.SSLContext, shared_redis: RedisServer, channel: str
) -> None:
    """The opening comment and single events arrive, and so does a client's end."""
    with StreamClient(proxy.port, channel, tls=tls) as client:
        client.open()
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
        for number in range(_EVENTS):
            app.publish(str(number), channel)
            # A proxy that buffers would keep such a small event to itself.
            client.wait_events(number + 1)
        assert [event.data for event in client.events] == [str(n) for n in range(_EVENTS)]
        assert shared_redis.listeners(channel) == 1
    shared_redis.wait_listeners(0, channel)


def test_browsers_get_http2(
    proxy: Process, app: Site, tls: ssl.SSLContext, shared_redis: RedisServer, channel: str
) -> None:
    """An event arrives in each of several HTTP/2 streams: more than six, except with Apache."""
    url = f"https://localhost:{proxy.port}/stream?channel={channel}"
    number = 6 if proxy.info.name() == "apache2" else 20
    with httpx.Client(http2=True, verify=tls, timeout=PATIENCE) as client, ExitStack() as stack:
        answers = [stack.enter_context(client.stream("GET", url)) for _ in range(number)]
        assert {answer.http_version for answer in answers} == {"HTTP/2"}
        shared_redis.wait_listeners(1, channel)
        app.publish("x", channel)
        for answer in answers:
            parser, pieces = Parser(), answer.iter_raw()
            while not parser.events:
                parser.feed(next(pieces))
            assert parser.events == [Event("message", "x", "")]


def test_the_longest_id_passes_the_proxy(proxy: Process, app: Site, tls: ssl.SSLContext) -> None:
    """It does with a browser's headers, also if the page has been rendered with such an id."""
    last_id = longest_id.lengthen(app.get("/position"))
    path = f"{longest_id.PATH}?last_event_id={last_id}"
    headers = f"{longest_id.HEADERS}Last-Event-ID: {last_id}\r\n"
    with StreamClient(proxy.port, path=path, headers=headers, tls=tls) as client:
        longest_id.check(client)


def test_every_configuration_is_tried() -> None:
    """The tests here run all proxy configurations of the documentation."""
    shown = set(re.findall(r"examples/deployment/(\S+)", _page("deployment.rst")))
    others = {"behind_proxy.py", "gunicorn.conf.py", "app.service", "Containerfile", "Procfile"}
    others.add("compose.yaml")  # see test_cluster_compose
    assert shown - others == {"nginx.conf", "apache.conf", "haproxy.cfg", "Caddyfile"}


def _page(name: str) -> str:
    return (servers.ROOT / "docs" / name).read_text()
