"""Clients of different servers, or with different logins, do not share a connection."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from flask import Flask, request
from redis.connection import Connection
from redis.sentinel import Sentinel

from flask_sse import Message, ServerSentEventsBlueprint
from flask_sse.testing import Stream, open_stream
from tests.support.processes import LOOPBACK
from tests.support.redis_server import RedisServer

Clients = dict[str, Callable[[], redis.StrictRedis]]


class Tenants(ServerSentEventsBlueprint):
    """Makes a new client for each request, of the tenant's kind."""

    clients: Clients

    @property
    def redis(self) -> redis.StrictRedis:
        """The client of the tenant that the request names."""
        return self.clients[request.args["tenant"]]()


class Site:
    """An application in which each tenant has its own Redis or login."""

    def __init__(self, clients: Clients) -> None:
        self.tenants = Tenants("tenants", __name__)
        self.tenants.clients = clients
        self.tenants.add_url_rule("", endpoint="stream", view_func=self.tenants.stream)
        self.app = Flask("tests")
        self.app.register_blueprint(self.tenants, url_prefix="/stream")

    def open(self, tenant: str, channel: str = "sse") -> AbstractContextManager[Stream]:
        """Open a stream of a tenant's."""
        return open_stream(self.app, channel, url=f"/stream?tenant={tenant}")

    def publish(self, tenant: str, data: str, channel: str = "sse") -> int:
        """Publish as a tenant."""
        with self.app.test_request_context(f"/?tenant={tenant}"):
            return self.tenants.publish(data, channel=channel)

    def check_apart(self, channel: str = "sse") -> None:
        """Each tenant receives only its own events."""
        with ExitStack() as stack:
            streams = {
                tenant: stack.enter_context(self.open(tenant, channel))
                for tenant in self.tenants.clients
            }
            for tenant in streams:
                assert self.publish(tenant, f"for {tenant}", channel) == 1
            for tenant, stream in streams.items():
                assert stream.get() == Message(f"for {tenant}")


def test_sentinels_with_the_same_service_name(tmp_path: Path) -> None:
    """Two sentinel setups are separate, although each calls its primary ``demo``."""
    clients: Clients = {}
    with ExitStack() as stack:
        for tenant in ("a", "b"):
            primary, sentinel = RedisServer(tmp_path), RedisServer(tmp_path)
            stack.callback(primary.stop)
            stack.callback(sentinel.stop)
            primary.start()
            sentinel.start_sentinel("demo", primary)
            clients[tenant] = _client_of(sentinel)
        Site(clients).check_apart()


def _client_of(sentinel: RedisServer) -> Callable[[], redis.StrictRedis]:
    def new_client() -> redis.StrictRedis:
        sentinels = Sentinel([(LOOPBACK, sentinel.port)])
        client: redis.StrictRedis = sentinels.master_for("demo")
        return client

    return new_client


def test_unix_sockets(tmp_path: Path) -> None:
    """Two sockets on one machine belong to two servers."""
    clients: Clients = {}
    with ExitStack() as stack:
        for tenant in ("a", "b"):
            path = str(tmp_path / tenant)
            server = RedisServer(tmp_path, unixsocket=path)
            stack.callback(server.stop)
            server.start()
            clients[tenant] = partial(redis.StrictRedis, unix_socket_path=path)
        Site(clients).check_apart()


def test_databases_share_a_connection(shared_redis: RedisServer, channel: str) -> None:
    """Pub/Sub ignores databases, so clients that differ only in the database share a connection."""
    site = Site(
        {
            "a": lambda: redis.StrictRedis(port=shared_redis.port, db=1),
            "b": lambda: redis.StrictRedis(port=shared_redis.port, db=2, socket_timeout=9),
        }
    )
    before = shared_redis.pubsub_connections()
    with site.open("a", channel) as first, site.open("b", channel) as second:
        assert shared_redis.pubsub_connections() == before + 1
        assert site.publish("a", "for both", channel) == 1
        for stream in (first, second):
            assert stream.get() == Message("for both")


@pytest.mark.parametrize("kind", ["arguments", "connect function"])
def test_users(redis_server: RedisServer, kind: str) -> None:
    """Each user receives the channels that it may access, and not those of another user."""

    def connect_as(user: str) -> Callable[[Connection], None]:
        def connect(connection: Connection) -> None:
            connection.on_connect()
            connection.send_command("AUTH", user, "secret")
            connection.read_response()

        return connect

    clients: Clients = {}
    for user in ("a", "b"):
        redis_server.admin.execute_command(
            "ACL", "SETUSER", user, "on", ">secret", "resetchannels", f"&{user}.*", "+@all"
        )
        known: dict[str, Any] = (
            {"username": user, "password": "secret"}
            if kind == "arguments"
            else {"redis_connect_func": connect_as(user)}
        )
        clients[user] = partial(redis.StrictRedis, port=redis_server.port, **known)
    site = Site(clients)
    with site.open("a", "a.x") as own, site.open("b", "a.x") as foreign:
        assert foreign.retry is not None
        assert site.publish("a", "for a", "a.x") == 1
        assert own.get() == Message("for a")


def test_certificates(tmp_path: Path) -> None:
    """A client that does not trust the server gets nothing through a client that does."""
    authority, other = trustme.CA(), trustme.CA()
    paths = {name: str(tmp_path / name) for name in ("right", "wrong")}
    authority.cert_pem.write_to_path(paths["right"])
    other.cert_pem.write_to_path(paths["wrong"])
    server = RedisServer.over_tls(tmp_path, authority)
    server.start()
    clients: Clients = {
        trusted: partial(
            redis.StrictRedis,
            host=LOOPBACK,
            port=server.port,
            ssl=True,
            ssl_ca_certs=paths[trusted],
        )
        for trusted in ("right", "wrong")
    }
    try:
        site = Site(clients)
        with site.open("right") as stream, site.open("wrong") as distrustful:
            assert distrustful.retry is not None
            assert site.publish("right", "x") == 1
            assert stream.get() == Message("x")
    finally:
        server.stop()
