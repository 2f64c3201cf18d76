"""The meaning of a cluster's errors, in the forms that all versions of redis-py give them."""

import pytest
import redis
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    MovedError,
    RedisClusterException,
    TryAgainError,
)

from flask_sse._redis.cluster.errors import (
    Redirection,
    WrongServerError,
    explain_cluster,
    explain_connecting,
    is_passing,
)
from flask_sse._redis.url import Address

HERE = Address("here", 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MovedError("3999 10.0.0.1:6381"), (3999, ("10.0.0.1", 6381), False)),
        (AskError("3999 10.0.0.1:6381"), (3999, ("10.0.0.1", 6381), True)),
        (redis.ResponseError("MOVED 0 h:1"), (0, ("h", 1), False)),
        (redis.ResponseError("ASK 0 h:1"), (0, ("h", 1), True)),
        (MovedError("7 :6381"), (7, ("here", 6381), False)),
        (MovedError("7 ::1:6381"), (7, ("::1", 6381), False)),
        (TryAgainError("Multiple keys request during rehashing of slot"), None),
        (redis.ConnectionError("MOVED"), None),
    ],
)
def test_redirections(error: Exception, expected: object) -> None:
    """The node that an error names; it may leave out the host of the node that was asked."""
    assert Redirection.of(error, HERE) == expected


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (redis.ConnectionError("reset"), True),
        (redis.TimeoutError("no answer"), True),
        (redis.BusyLoadingError("Redis is loading"), True),
        (redis.ReadOnlyError("You can't write"), True),
        (redis.ResponseError("CLUSTERDOWN Hash slot not served"), True),
        (redis.ResponseError("TRYAGAIN Multiple keys"), True),
        (TryAgainError("Multiple keys"), True),
        (MovedError("7 h:1"), True),
        (redis.AuthenticationError("invalid password"), False),
        (WrongServerError("not a cluster"), False),
        (redis.ResponseError("NOPERM this user has no permissions"), False),
        (redis.ResponseError("ERR about a MOVED piece"), False),
    ],
)
def test_errors_that_pass(error: Exception, passes: bool) -> None:
    """A cluster that changes answers differently a moment later; a wrong password stays wrong."""
    assert is_passing(error) is passes


@pytest.mark.parametrize(
    ("error", "url"),
    [
        (MovedError("7 10.0.0.1:6381"), "redis+cluster://10.0.0.1:6381 "),
        (redis.ResponseError("MOVED 7 10.0.0.1:6381"), "redis+cluster://10.0.0.1:6381 "),
        (MovedError("7 :6381"), "redis+cluster:// "),
        (ClusterCrossSlotError("Keys don't hash to the same slot"), "redis+cluster:// "),
    ],
)
def test_a_cluster_behind_another_url(error: Exception, url: str) -> None:
    """The error names the URL to use."""
    explained = explain_cluster(error)
    assert explained is not None
    assert f"begin REDIS_URL with {url}" in str(explained)


def test_other_errors_are_not_about_clusters() -> None:
    """Errors that a single Redis gives are left alone."""
    assert explain_cluster(redis.ResponseError("WRONGTYPE")) is None


def test_the_reason_behind_errors_of_redis_py() -> None:
    """The error of a cluster client has the cause that redis-py hides."""
    hidden = RedisClusterException("Redis Cluster cannot be connected")
    hidden.__cause__ = redis.AuthenticationError("invalid password")
    explained = explain_connecting(hidden, "h:1")
    assert type(explained) is redis.AuthenticationError
    assert str(explained).endswith("answers at h:1; check REDIS_URL: invalid password")


def test_a_forbidden_command() -> None:
    """The permissions that are needed are named."""
    error = redis.ResponseError("NOPERM this user has no permissions to run 'cluster|slots'")
    assert "+cluster|slots at" in str(explain_connecting(error, "h:1"))
