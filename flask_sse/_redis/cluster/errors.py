"""What the errors of a Redis Cluster mean: what they ask for, and what to change.

Pure. Some versions of redis-py have classes for these errors only on the connections of their
own cluster client, so this looks at the texts.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, Self

import redis
from redis.exceptions import (
    AskError,
    AuthorizationError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    TryAgainError,
)

from flask_sse._redis.url import Address

LOST: Final = (redis.ConnectionError, redis.TimeoutError)
"""The errors after which it is unknown whether Redis has executed the command."""

_REDIRECTIONS: Final = ("MOVED", "ASK")
_PASSING: Final = (*_REDIRECTIONS, "TRYAGAIN", "CLUSTERDOWN", "LOADING", "READONLY", "MASTERDOWN")
LOGIN: Final = (redis.AuthenticationError, AuthorizationError)
"""The errors of a node that does not accept the login."""
_UNKNOWN: Final = ("unknown command", "Unknown Redis command")
_NO_CLUSTER: Final = ("cluster support disabled", "Cluster mode is not enabled", *_UNKNOWN)
_CODES: Final[Mapping[type[Exception], str]] = {
    AskError: "ASK",
    ClusterCrossSlotError: "CROSSSLOT",
    ClusterDownError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    MovedError: "MOVED",
    NoPermissionError: "NOPERM",
    redis.ReadOnlyError: "READONLY",
    TryAgainError: "TRYAGAIN",
}
"""redis-py removes the code from the texts of these errors."""


class WrongServerError(redis.ConnectionError):
    """The URL does not suit the server, so that waiting does not help."""


class NotConnectedError(redis.ConnectionError):
    """There is no connection to a node, so that it has not executed the command."""


class Redirection(NamedTuple):
    """Another node has the slot. The one that says so has not executed the command."""

    slot: int
    address: Address
    is_ask: bool
    """Whether the slot is being moved, so that ASKING must come before the command."""

    @classmethod
    def of(cls, error: Exception, asked: Address) -> Self | None:
        """Return what an error asks for, or `None` if it is no redirection.

        :param asked: The node that has answered, which may leave out its host.
        """
        code = _code(error)
        if code not in _REDIRECTIONS:
            return None
        _, slot, where = _text(error).split(" ", 2)
        host, _, port = where.rpartition(":")
        host = host.strip("[]")
        return cls(int(slot), Address(host or asked.host, int(port)), code == "ASK")


def is_passing(error: Exception) -> bool:
    """Whether the cluster may execute the same command a moment later, perhaps elsewhere."""
    if isinstance(error, LOST):
        return not isinstance(error, (*LOGIN, WrongServerError))
    return _code(error) in _PASSING


def is_unsupported(error: Exception) -> bool:
    """Whether the server does not have a command."""
    return any(sign in str(error) for sign in _UNKNOWN)


def explain_connecting(error: BaseException, start: str) -> redis.ConnectionError:
    """Return the error for a cluster whose nodes can't be found.

    :param start: The addresses of the nodes that were asked.
    """
    reason = _reason(error)
    text = _text(reason)
    if _code(reason) == "NOPERM":
        return WrongServerError(
            f"the user of REDIS_URL needs the permission +cluster|slots at {start}; Redis says: "
            f"{text}"
        )
    if any(sign in text for sign in _NO_CLUSTER):
        return WrongServerError(
            f"the server at {start} is not part of a Redis Cluster; begin REDIS_URL with redis:// "
            f"(rediss:// for TLS) instead of redis+cluster://"
        )
    kind = type(reason) if isinstance(reason, LOGIN) else redis.ConnectionError
    return kind(f"no node of the Redis Cluster answers at {start}; check REDIS_URL: {text}")


def is_no_cluster(error: Exception) -> bool:
    """Whether the server is not part of a cluster."""
    return any(sign in _text(error) for sign in _NO_CLUSTER)


def has_code(error: Exception, code: str) -> bool:
    """Whether it is a node's error that begins with a word."""
    return _code(error) == code


def explain_cluster(error: Exception) -> redis.ResponseError | None:
    """Return the error for a cluster behind the URL of a single Redis, or `None` for others."""
    text, code = _text(error), _code(error)
    if code not in (*_REDIRECTIONS, "CROSSSLOT"):
        return None
    address = "" if code == "CROSSSLOT" else text.rpartition(" ")[2]
    url = f"redis+cluster://{'' if address.startswith(':') else address}"
    return redis.ResponseError(
        f"this Redis is part of a cluster; begin REDIS_URL with {url} (rediss+cluster:// for TLS), "
        f"after which the user, the password and the options stay as they are; Redis says: {text}"
    )


def explain_old(version: object) -> redis.ResponseError:
    """Return the error for a server without sharded Pub/Sub."""
    return redis.ResponseError(
        f"redis+cluster:// needs SPUBLISH, which Redis has since version 7.0, and this is Redis "
        f"{version}; update the cluster"
    )


def _code(error: BaseException) -> str:
    """Return the first word of a node's error, or nothing for other errors."""
    return _text(error).partition(" ")[0] if isinstance(error, redis.ResponseError) else ""


def _text(error: BaseException) -> str:
    """Return the text of an error as Redis has sent it."""
    text = str(error)
    code = _CODES.get(type(error)) if isinstance(error, Exception) else None
    return text if code is None or text.startswith(f"{code} ") else f"{code} {text}"


def _reason(error: BaseException) -> BaseException:
    """Return the error that redis-py's cluster client hides behind its own."""
    while not isinstance(error, redis.RedisError):
        earlier = error.__cause__ or error.__context__
        if earlier is None:
            break
        error = earlier
    return error
