"""Parsing the URL of a Redis Cluster."""

import pytest
from redis.connection import SSLConnection

from flask_sse._redis.url import Address, OptionError, RedisURL, may_show, parse

ACCEPTED = [
    ("redis+cluster://h", [("h", 6379)], {}),
    ("redis+cluster://h:1,other:2", [("h", 1), ("other", 2)], {}),
    ("redis+cluster://h:1,h:1/0?db=0", [("h", 1)], {}),
    ("redis+cluster://[::1]:7000,[::2]", [("::1", 7000), ("::2", 6379)], {}),
    ("redis+cluster://h,[::1]:7000", [("h", 6379), ("::1", 7000)], {}),
    ("redis+cluster://u:p%40@h", [("h", 6379)], {"username": "u", "password": "p@"}),
    ("redis+cluster://:p,q@h:1", [("h", 1)], {"password": "p,q"}),
    (
        "redis+cluster://h?socket_timeout=2&max_connections=7",
        [("h", 6379)],
        {"socket_timeout": 2.0, "max_connections": 7},
    ),
    (
        "rediss+cluster://h?ssl_ca_certs=/ca.pem",
        [("h", 6379)],
        {"connection_class": SSLConnection, "ssl_ca_certs": "/ca.pem"},
    ),
    (
        "rediss+cluster://h?ssl_cert_reqs=CERT_NONE",
        [("h", 6379)],
        {
            "connection_class": SSLConnection,
            "ssl_cert_reqs": "none",
            "ssl_check_hostname": False,
        },
    ),
]
REJECTED = [
    ("redis+cluster://h/1", "", "a cluster has only database 0, not '1'"),
    ("redis+cluster://h/service", "", "a cluster has only database 0, not 'service'"),
    ("redis+cluster://h?db=3", "db", "a cluster has only database 0, not '3'"),
    ("redis+cluster://h:x,other:1", "", "the port, after the host, must be a number"),
    ("redis+cluster://h:1,other:99999", "", "the port, after the host, must be a number"),
    ("redis+cluster://", "", "it names no node, as in redis+cluster://"),
    ("redis+cluster://h,,other", "", "it names no node, as in redis+cluster://"),
    ("redis+cluster://h?ssl=1", "ssl", "begin the URL with rediss+cluster:// instead"),
    ("rediss+cluster://h?ssl=1", "ssl", "not an option of rediss+cluster://; leave it out"),
    ("redis+cluster://h?ssl_ca_certs=x", "ssl_ca_certs", "is for TLS"),
    ("redis+cluster://h?socket_timeout=x", "socket_timeout", "must be a number of seconds"),
]


@pytest.mark.parametrize(("url", "nodes", "options"), ACCEPTED)
def test_accepted(url: str, nodes: list[tuple[str, int]], options: dict[str, object]) -> None:
    """The nodes and the options that a URL names; the host of one node is not an option."""
    found = parse(url)
    assert [*found.nodes] == nodes
    assert found.options == options
    assert found.is_tls == url.startswith("rediss")
    assert found.sentinels is None


@pytest.mark.parametrize(("url", "option", "text"), REJECTED)
def test_rejected(url: str, option: str, text: str) -> None:
    """The error for a URL names the option, and says what to change."""
    with pytest.raises(OptionError) as caught:
        parse(url)
    assert caught.value.option == option
    assert text in str(caught.value)
    assert may_show(url, option)


@pytest.mark.parametrize(
    "url",
    ["redis+cluster://u:se/cret@h", "redis+cluster://h/x?password=se", "redis+cluster://h?ssl=1#@"],
)
def test_secrets(url: str) -> None:
    """If a URL may contain part of a password in the wrong place, its error is not shown."""
    with pytest.raises(OptionError):
        parse(url)
    assert not may_show(url, "")


def test_others_have_no_nodes() -> None:
    """The URL of a single Redis names no nodes of a cluster."""
    assert parse("redis://h:1/2") == RedisURL(
        "redis://h:1/2", {"host": "h", "port": 1, "db": 2}, is_tls=False
    )


def test_an_address_as_text() -> None:
    """An address is shown in the form that a URL has."""
    assert str(Address("h", 1)) == "h:1"
    assert str(Address("::1", 7000)) == "[::1]:7000"
