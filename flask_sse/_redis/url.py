"""Parses the URL of Redis, and says which option of it is wrong.

Pure. redis-py parses it too, but takes values that it does not understand as text or as true,
or leaves them out.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from redis.connection import parse_url  # pyright: ignore[reportUnknownVariableType] - untyped

SENTINEL: Final = "sentinel_"
"""How the options begin that are for the sentinels."""

_SENTINEL_PORT: Final = 26379
_NODE_PORT: Final = 6379
_NO_SENTINEL: Final = "it names no sentinel, as in redis+sentinel://host:26379/mymaster"
_NO_NODE: Final = "it names no node, as in redis+cluster://host:6379,other:6379"
_TLS: Final = ("rediss", "rediss+sentinel", "rediss+cluster")
_OF_CLUSTER: Final = re.compile(
    r"(rediss?)\+cluster://(?:([^/?#]*)@)?([^/?#@]*)([^?#]*)(.*)", re.DOTALL
)
_SECRETS: Final = ("password", "username", "ssl_password", "ssl_ca_data")
_CERTIFICATES: Final = ("none", "optional", "required")
_OF_CELERY: Final = re.compile(r"([?&](?:sentinel_)?ssl_cert_reqs=)CERT_(NONE|OPTIONAL|REQUIRED)\b")
_TRUE: Final = ("1", "on", "t", "true", "y", "yes")
_FALSE: Final = ("0", "off", "f", "false", "n", "no")

Option = tuple[str, str]
"""The name and the text of an option."""


class Address(NamedTuple):
    """Where a server is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Sentinels(NamedTuple):
    """Where the sentinels are, and what they are asked for."""

    addresses: Sequence[Address]
    service: str
    options: Mapping[str, Any]
    """The options of the connections to them."""


class RedisURL(NamedTuple):
    """The contents of a URL."""

    plain: str
    """The URL as redis-py can parse it; without the sentinels or the nodes."""
    options: Mapping[str, Any]
    """The options of the connections to Redis, as redis-py names them."""
    is_tls: bool
    """Whether these connections are encrypted."""
    sentinels: Sentinels | None = None
    nodes: Sequence[Address] = ()
    """The nodes of a cluster that are asked first."""


class OptionError(ValueError):
    """A part of a URL is wrong.

    :param option: The name of the option, or nothing for another part.
    :param text: What is wrong. It may contain part of a password only if :func:`may_show` says so.
    """

    def __init__(self, option: str, text: str) -> None:
        super().__init__(text)
        self.option = option


def parse(url: str) -> RedisURL:
    """Parse a URL that begins with a supported scheme.

    :raises OptionError: if a part is wrong; the message names it.
    :raises ValueError: if something else is wrong; the message may show part of a password.
    """
    # These are Python's names, which Celery wants.
    url = _OF_CELERY.sub(lambda found: found[1] + found[2].lower(), url)
    if cluster := _OF_CLUSTER.fullmatch(url):
        return _with_nodes(cluster)
    parts = urlsplit(url)
    if parts.scheme.endswith("+sentinel"):
        return _with_sentinels(url)
    is_tls = parts.scheme in _TLS
    query = parse_qsl(parts.query)
    _check_no_switch(parts.scheme, query)
    _check_port(parts)
    if parts.scheme != "unix" and not any(name == "db" for name, _ in query):
        _check_database(parts.path)
    return RedisURL(url, _parse_plain(url, query, is_tls=is_tls), is_tls)


def options_in(url: str) -> Iterator[Option]:
    """Yield the options in a URL, with their texts."""
    yield from parse_qsl(url.partition("#")[0].partition("?")[2])


def may_show(url: str, name: str) -> bool:
    """Whether an error may name an option: it is not part of a password with a special character.

    :param name: The option's name.
    """
    after_host = re.sub(r"^[^:]*://[^/?#]*", "", url)
    if "@" in after_host or "#" in after_host:
        return False
    has_secrets = any(_is_secret(other) for other, _ in options_in(url))
    return name.removeprefix(SENTINEL) in ("ssl", *_PARSERS) or not has_secrets


def is_switch(name: str) -> bool:
    """Whether an option decides which others are possible."""
    return name in ("ssl", f"{SENTINEL}ssl")


def explain_rejected(option: Option) -> OptionError:
    """Return the error for an option that redis-py rejects."""
    name, text = option
    shown = f"{name}={'...' if _is_secret(name) else text}"
    known = name.removeprefix(SENTINEL)
    close = [] if known in _PARSERS else difflib.get_close_matches(known, _PARSERS, 1)
    guess = f"; did you mean {name.removesuffix(known)}{close[0]}?" if close else ""
    return OptionError(name, f"redis-py does not accept the option {shown}{guess}")


def _with_sentinels(url: str) -> RedisURL:
    """Parse ``redis+sentinel://user:password@host:port,host:port/service/db``."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query)
    login, at, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise OptionError(
            "",
            "it names no service; the name that the sentinels have for the primary follows the "
            "hosts, as in redis+sentinel://host:26379/mymaster",
        )
    theirs = [(name, text) for name, text in query if name.startswith(SENTINEL)]
    own = [option for option in query if option not in theirs]
    default = parts.scheme in _TLS
    is_tls = _take_switch(own, "ssl", default=default)
    if default and not is_tls:
        raise OptionError(
            "ssl", "ssl is off, but rediss+sentinel:// means TLS; begin it with redis+sentinel://"
        )
    is_tls_there = _take_switch(theirs, f"{SENTINEL}ssl", default=default)
    # Everything except the hosts is as in any other URL.
    scheme = "rediss" if is_tls else "redis"
    plain = f"{scheme}://{login}{at}master/{database}?{urlencode(own)}"
    options = {key: value for key, value in parse(plain).options.items() if key != "host"}
    addresses = [_address(host, _SENTINEL_PORT, _NO_SENTINEL) for host in hosts.split(",")]
    for_sentinels = _parse_for_sentinels(theirs, is_tls=is_tls_there)
    if is_tls_there:
        shared = {key: value for key, value in options.items() if key.startswith("ssl_")}
        for_sentinels = {**shared, **for_sentinels, "ssl": True}
    return RedisURL(plain, options, is_tls, Sentinels(addresses, service, for_sentinels))


def _with_nodes(found: re.Match[str]) -> RedisURL:
    """Parse ``redis+cluster://user:password@host:port,host:port``."""
    scheme, login, hosts, path, rest = found.groups()
    query = [*options_in(rest)]
    _check_no_switch(f"{scheme}+cluster", query)
    # Python can't split a URL with several addresses of IPv6.
    nodes = [_address(host, _NODE_PORT, _NO_NODE) for host in hosts.split(",")]
    named = [("", unquote(path).strip("/")), *(each for each in query if each[0] == "db")]
    for name, text in named:
        if text not in ("", "0"):
            raise OptionError(name, f"a cluster has only database 0, not {text!r}; leave it out")
    at = "" if login is None else f"{login}@"
    plain = f"{scheme}://{at}node/{rest}"
    places = ("host", "port", "db")
    known = {key: value for key, value in parse(plain).options.items() if key not in places}
    return RedisURL(plain, known, scheme == "rediss", nodes=[*dict.fromkeys(nodes)])


def _parse_for_sentinels(query: Sequence[Option], *, is_tls: bool) -> dict[str, Any]:
    scheme = "rediss" if is_tls else "redis"
    named = [(name.removeprefix(SENTINEL), text) for name, text in query]
    options = _parse_plain(f"{scheme}://?{urlencode(named)}", query, is_tls=is_tls)
    options.pop("connection_class", None)
    return options


def _take_switch(query: list[Option], name: str, *, default: bool) -> bool:
    """Remove an option that is true or false from a query, and return its value."""
    found = [text for other, text in query if other == name]
    query[:] = [option for option in query if option[0] != name]
    return _boolean(name, found[0]) if found else default


def _parse_plain(url: str, query: Sequence[Option], *, is_tls: bool) -> dict[str, Any]:
    """Parse a URL like redis-py, but with the right types.

    :param query: Its options, with the names for errors.
    """
    typed: dict[str, Any] = {}
    for name, text in query:
        key = name.removeprefix(SENTINEL)
        if key.startswith("ssl_") and not is_tls:
            raise OptionError(
                name, f"{name} is for TLS; begin the URL with rediss instead of redis"
            )
        if key in _PARSERS:
            typed.setdefault(key, _PARSERS[key](name, text))
    options = {**cast("dict[str, Any]", parse_url(url)), **typed}
    if options.get("ssl_cert_reqs") == "none":
        # redis-py 6.0.0 checks the host's name even then, which Python refuses.
        options["ssl_check_hostname"] = False
    return options


def _check_database(path: str) -> None:
    """Reject a database that is not a number; redis-py would use database 0 instead."""
    text = unquote(path).strip("/")
    if text and not _is_number(text):
        raise OptionError("", f"the database, after the last slash, must be a number, not {text!r}")


def _check_no_switch(scheme: str, query: Sequence[Option]) -> None:
    """Reject an option that would say whether connections are encrypted, since the scheme does."""
    encrypted = scheme.replace("redis", "rediss", 1)
    for name, text in query:
        if name == "ssl":
            is_tls = scheme in _TLS
            remedy = "leave it out" if is_tls else f"begin the URL with {encrypted}:// instead"
            raise OptionError(name, f"ssl={text} is not an option of {scheme}://; {remedy}")


def _check_port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        # It may be a password.
        raise OptionError("", "the port, after the host, must be a number") from None


def _address(host: str, port: int, missing: str) -> Address:
    """Parse an address.

    :param port: Its port, if it does not name one.
    :param missing: The text of the error if there is no host.
    """
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise OptionError("", missing)
    return Address(parts.hostname, _check_port(parts) or port)


def _is_secret(name: str) -> bool:
    return name.removeprefix(SENTINEL) in _SECRETS


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise OptionError(name, f"{name} must be true or false, not {text!r}")
    return text.lower() in _TRUE


def _number(name: str, text: str) -> int:
    if not _is_number(text):
        raise OptionError(name, f"{name} must be a whole number, not {text!r}")
    return int(text)


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds <= 0:
        raise OptionError(name, f"{name} must be a number of seconds above 0, not {text!r}")
    return seconds


def _certificates(name: str, text: str) -> str:
    if text not in _CERTIFICATES:
        raise OptionError(name, f"{name} must be none, optional or required, not {text!r}")
    return text


_PARSERS: Final[Mapping[str, Callable[[str, str], object]]] = {
    "db": _number,
    "max_connections": _number,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _boolean,
    "socket_timeout": _seconds,
    "ssl_cert_reqs": _certificates,
    "ssl_check_hostname": _boolean,
    "ssl_min_version": _number,
    "ssl_validate_ocsp": _boolean,
    "ssl_validate_ocsp_stapled": _boolean,
}
