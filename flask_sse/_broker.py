"""From the settings to a client of Redis.

Making a client connects to nothing. The clients are safe to share between threads.
"""

from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from flask_sse._settings import URL_KEYS, Settings

_NO_URL: Final = "Must set a redis connection URL in app config."
_CONNECTIONS: Final = 50
_TIMEOUT: Final = 5.0
_SENTINEL_PORT: Final = 26379


def make_client(settings: Settings) -> redis.StrictRedis:
    """Return a client for the Redis that an application names.

    What a URL says in its query goes before the defaults given here.

    :raises KeyError: if the application names none.
    :raises ValueError: if the URL cannot be understood.
    :raises ModuleNotFoundError: if ``memory://`` lacks its package.
    """
    url = settings.redis_url
    if url is None:
        raise KeyError(_NO_URL)
    if settings.in_memory:
        return _in_memory()
    try:
        return _sentinel(url) if url.startswith("redis+sentinel://") else _server(url)
    except ValueError as error:
        # The reason may show a part of the password, and so may the traceback.
        raise ValueError(
            f"{' or '.join(URL_KEYS)} is no URL that redis-py can read; is every special "
            f"character of the password percent-encoded, and each option known?"
        ) from (error if "@" not in url else None)


def _server(url: str) -> redis.StrictRedis:
    # The pool that waits for a free connection: with redis-py's other one, more
    # publishing greenlets than connections would lose events.
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=_TIMEOUT,
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
        retry=_no_retry(),
    )
    return redis.StrictRedis(connection_pool=pool)


def _sentinel(url: str) -> redis.StrictRedis:
    """Understand ``redis+sentinel://user:password@host:port,host:port/service/db``."""
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("the URL names no service")
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    sentinel = Sentinel(
        [_address(host) for host in hosts.split(",")],
        sentinel_kwargs={
            "socket_timeout": _TIMEOUT,
            "username": options.get("sentinel_username"),
            "password": options.get("sentinel_password"),
        },
        socket_timeout=_TIMEOUT,
        retry=_no_retry(),
    )
    client: redis.StrictRedis = sentinel.master_for(
        service,
        redis_class=redis.StrictRedis,
        db=int(db or 0),
        username=unquote(user) or None,
        password=unquote(password) or None,
    )
    return client


def _address(host: str) -> tuple[str, int]:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError("the URL names no sentinel")
    return parts.hostname, parts.port or _SENTINEL_PORT


def _in_memory() -> redis.StrictRedis:
    try:
        import fakeredis  # noqa: PLC0415 - an extra, needed for memory:// alone
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "memory:// needs the package fakeredis: pip install 'Flask-SSE[memory]'"
        ) from error
    return fakeredis.FakeStrictRedis(server=fakeredis.FakeServer())


def _no_retry() -> Retry:
    # A command that has been sent may have been carried out: by default redis-py delivered
    # one publish twice when Redis was silent for longer than the time-out. A connection
    # of the pool that has died is noticed before anything is sent.
    return Retry(NoBackoff(), 0)
