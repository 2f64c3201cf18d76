"""The longest id of a stream passes the servers, with their own limits and a browser's headers.

A server that refuses a request ends an `EventSource` for good.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

import pytest

from tests.support import servers
from tests.support.client import StreamClient
from tests.support.longest_id import HEADERS, MILLIONS, PATH, check, lengthen
from tests.support.redis_server import RedisServer
from tests.support.servers import Serve, Site

_APP: Final = "tests.apps.several:app"
_SERVERS: Final[dict[str, Serve]] = {
    "gunicorn": partial(servers.gunicorn, app=_APP),
    "uWSGI": servers.other("uwsgi --threads", "--module", _APP),
}


@pytest.fixture(scope="module", params=_SERVERS)
def site(
    request: pytest.FixtureRequest,
    shared_redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Return the site."""
    settings = {"REDIS_URL": shared_redis.url, "SSE_HISTORY": 10}
    with _SERVERS[request.param](tmp_path_factory.mktemp("site"), settings=settings) as site:
        yield site


def test_in_the_header(site: Site) -> None:
    """A client comes back."""
    headers = f"{HEADERS}Last-Event-ID: {lengthen(site.get('/position'))}\r\n"
    with StreamClient(site.port, path=PATH, headers=headers) as client:
        check(client)


def test_in_the_query(site: Site) -> None:
    """A page has been rendered with the id."""
    path = f"{PATH}?last_event_id={lengthen(site.get('/position'))}"
    with StreamClient(site.port, path=path, headers=HEADERS) as client:
        check(client)


def test_in_both(site: Site) -> None:
    """A client of such a page comes back: uWSGI has room for an id that is a little shorter."""
    last_id = lengthen(site.get("/position"), MILLIONS)
    headers = f"{HEADERS}Last-Event-ID: {last_id}\r\n"
    path = f"{PATH}?last_event_id={last_id}"
    with StreamClient(site.port, path=path, headers=headers) as client:
        check(client)
