"""The settings of one application: the only reader of ``app.config``.

Pure: called once for an application, from the first thread that needs them.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple, Self, cast

URL_KEYS: Final = ("SSE_REDIS_URL", "REDIS_URL")
KEYS: Final = (
    *URL_KEYS,
    "SSE_KEEPALIVE",
    "SSE_RETRY",
    "SSE_MAX_PENDING",
    "SSE_MAX_CLIENTS",
    "SSE_MAX_AGE",
    "SSE_DIRECT",
    "SSE_HISTORY",
    "SSE_HISTORY_TTL",
    "SSE_PRESENCE",
)
"""All keys of the configuration that are read."""
SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
    "memory",
)
IN_MEMORY: Final = "memory://"
LATEST: Final = "latest"
PREFIX: Final = "SSE_"
_A_DAY: Final = 86_400
_A_YEAR: Final = 366 * _A_DAY


class Retention(NamedTuple):
    """Which events of a channel are kept."""

    length: int
    """How many events are kept."""
    is_latest: bool
    """Whether a client that sends no position gets the newest event at once."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of an application, after all checks."""

    redis_url: str | None
    """Where Redis is; `None` if the application does not say."""
    keepalive: float | None
    """Seconds of silence after which a stream gets a comment."""
    retry: int | None
    """Milliseconds, sent to each client at the start of its stream."""
    max_pending: int
    """Bytes that may wait for one client."""
    max_clients: int | None
    """Streams that one process serves at the same time."""
    max_age: float | None
    """Seconds after which a stream ends at the latest; `None` for no limit."""
    direct: bool
    """Whether events may be written directly to a client's socket, without the server."""
    history: tuple[tuple[str, Retention], ...]
    """Which events of which channels are kept; the first pattern that matches counts."""
    history_ttl: int
    """Seconds after a channel's last event for which its events are kept."""
    presence: tuple[str, ...]
    """Patterns of the channels whose members are known."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the settings of an application.

        :raises TypeError: if a value has the wrong type; the message names the key.
        :raises ValueError: if a value is out of range; the message names the key.
        """
        return cls(
            redis_url=_redis_url(config),
            keepalive=_seconds(config, "SSE_KEEPALIVE", default=15) or None,
            retry=_optional_integer(config, "SSE_RETRY", least=0, unit="milliseconds"),
            max_pending=_integer(config, "SSE_MAX_PENDING", default=1 << 20, least=1, unit="bytes"),
            max_clients=_optional_integer(config, "SSE_MAX_CLIENTS", least=1, unit="streams"),
            max_age=_max_age(config, "SSE_MAX_AGE"),
            direct=_boolean(config, "SSE_DIRECT", default=True),
            history=_history(config, "SSE_HISTORY"),
            history_ttl=_history_ttl(config, "SSE_HISTORY_TTL", default=3600),
            presence=_presence(config, "SSE_PRESENCE"),
        )

    def with_url_of(self, config: Mapping[str, Any]) -> Self:
        """Return these settings with the URL that the application has now.

        :raises TypeError: if the URL has the wrong type.
        :raises ValueError: if the URL has an unknown scheme.
        """
        url = _redis_url(config)
        return self if url == self.redis_url else replace(self, redis_url=url)

    def retention(self, channel: bytes) -> Retention | None:
        """Return which events of a channel are kept, or `None` if none are."""
        if not self.history:
            return None
        name = channel.decode(errors="replace")
        for pattern, retention in self.history:
            if fnmatchcase(name, pattern):
                return retention if retention.length else None
        return None

    def has_presence(self, channel: bytes) -> bool:
        """Whether the members of a channel are known."""
        if not self.presence:
            return False
        name = channel.decode(errors="replace")
        return any(fnmatchcase(name, pattern) for pattern in self.presence)

    @property
    def in_memory(self) -> bool:
        """Whether the events stay inside this process."""
        return self.redis_url is not None and self.redis_url.startswith(IN_MEMORY)


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """Return the keys that look like settings of this package and are not."""
    return [key for key in config if key.upper().startswith(PREFIX) and key not in KEYS]


def _redis_url(config: Mapping[str, Any]) -> str | None:
    for key in URL_KEYS:
        url = config.get(key)
        if url is None or url == "":
            continue
        if not isinstance(url, str):
            # The message does not show the value, which may contain a password.
            raise TypeError(
                f"{key} must be a str such as 'redis://localhost', not of the type "
                f"{type(url).__name__}; pass str() of it"
            )
        scheme, separator, _ = url.partition("://")
        if not separator or scheme not in SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            seen = f"not with {scheme!r}" if separator and scheme.isalnum() else "and does not"
            raise ValueError(f"{key} must begin with one of {known}, {seen}")
        return url
    return None


def _seconds(config: Mapping[str, Any], key: str, default: float) -> float | None:
    value = config.get(key, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{key} must be a number of seconds or None, not {value!r}")
    if not math.isfinite(value) or not 0 <= value <= _A_DAY:
        raise ValueError(
            f"{key} must be from 0 to {_A_DAY} seconds, not {value!r}; 0 or None switches it off"
        )
    return float(value)


def _max_age(config: Mapping[str, Any], key: str) -> float | None:
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{key} must be a number of seconds or None, not {value!r}")
    if not math.isfinite(value) or not 1 <= value <= _A_YEAR:
        raise ValueError(
            f"{key} must be from 1 to {_A_YEAR} seconds, not {value!r}; None means no limit"
        )
    return float(value)


def _integer(
    config: Mapping[str, Any], key: str, default: int, *, least: int, unit: str, optional: str = ""
) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{key} must be an int ({unit}){optional}, not {value!r}")
    if value < least:
        raise ValueError(f"{key} must be {least} {unit} or more{optional}, not {value!r}")
    return value


def _optional_integer(config: Mapping[str, Any], key: str, *, least: int, unit: str) -> int | None:
    if config.get(key) is None:
        return None
    return _integer(config, key, least, least=least, unit=unit, optional=" or None")


def _boolean(config: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise TypeError(f"{key} must be True or False, not {value!r}")
    return value


def _history(config: Mapping[str, Any], key: str) -> tuple[tuple[str, Retention], ...]:
    value: object = config.get(key)
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        retention = _retention(value, key, "an int (events) or a mapping")
        return (("*", retention),) if retention.length else ()
    rules: list[tuple[str, Retention]] = []
    for pattern, kept in cast("Mapping[object, object]", value).items():
        if not isinstance(pattern, str):
            raise TypeError(
                f"{key} must map patterns such as 'news.*' to numbers of events, but {pattern!r} "
                f"is not a str"
            )
        if kept == LATEST:
            rules.append((pattern, Retention(1, is_latest=True)))
        else:
            name = f"{key}[{pattern!r}]"
            rules.append((pattern, _retention(kept, name, f"an int (events) or {LATEST!r}")))
    return tuple(rules)


def _presence(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value: object = config.get(key)
    if value is None:
        return ()
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection):
        raise TypeError(f"{key} must be a list of patterns such as ['room.*'], not {value!r}")
    patterns = tuple(cast("Collection[object]", value))
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                f"{key} must be a list of patterns such as ['room.*'], but {pattern!r} is not a str"
            )
    return cast("tuple[str, ...]", patterns)


def _retention(value: object, name: str, wanted: str) -> Retention:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be 0 events or more, not {value!r}")
    return Retention(value, is_latest=False)


def _history_ttl(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{key} must be a number of seconds, not {value!r}")
    if not math.isfinite(value) or not 1 <= value <= _A_YEAR:
        raise ValueError(f"{key} must be from 1 to {_A_YEAR} seconds, not {value!r}")
    return math.ceil(value)
