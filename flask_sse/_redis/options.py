"""The options of a connection to Redis: which of them our own connections take over.

Pure. A URL or a client says where Redis is, how to log in, and how long to wait. It may also
say how replies are decoded and which commands are repeated. Our own connections, which
publish, subscribe and read logs, must not follow that: they parse the replies themselves, and
a command that has been sent may have been executed.
"""

from collections.abc import Mapping
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT: Final = 5.0
"""Seconds to wait for a connection, and for an answer, by default."""

_DROPPED: Final = ("parser_class", "socket_read_size", "legacy_responses", "command_packer")
_OF_THE_POOL: Final = ("maint", "oss_cluster_maint", "orig_")
"""How options begin that belong to the pool's own connections (redis-py 7 and later)."""


def portable_options(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a pool's connections that also suit connections outside the pool."""
    return {
        key: value
        for key, value in known.items()
        if key not in _DROPPED and not key.startswith(_OF_THE_POOL)
    }


def own_options(
    known: Mapping[str, Any],
    *,
    socket_timeout: float | None = None,
    socket_connect_timeout: float | None = None,
) -> dict[str, Any]:
    """Return the options of a connection like one with the known options, but of our own.

    :param known: The options of a pool's connections.
    :param socket_timeout: Seconds to wait for an answer, instead of the known ones.
    :param socket_connect_timeout: Seconds to wait for a connection, instead of the known ones.
    """
    options = portable_options(known)
    options["socket_timeout"] = socket_timeout or known.get("socket_timeout") or TIMEOUT
    options["socket_connect_timeout"] = (
        socket_connect_timeout or known.get("socket_connect_timeout") or TIMEOUT
    )
    return {
        **options,
        "decode_responses": False,
        "encoding": "utf-8",
        "encoding_errors": "strict",
        "health_check_interval": 0,
        "protocol": 2,
        # By default, redis-py published an event twice when Redis was silent for longer
        # than the timeout.
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "retry_on_timeout": False,
    }
