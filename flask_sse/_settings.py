"""The settings of one application: the only reader of ``app.config``.

Pure: called once for an application, from whichever thread comes first.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

URL_KEYS: Final = ("SSE_REDIS_URL", "REDIS_URL")
SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "memory")
_A_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Settings:
    """What an application has configured, checked."""

    redis_url: str | None
    """Where Redis is; `None` if the application does not say."""
    keepalive: float | None
    """Seconds of silence after which a stream gets a comment."""
    retry: int | None
    """Milliseconds, told to each client at the start of its stream."""
    max_pending: int
    """Bytes that may wait for one client."""
    max_clients: int | None
    """Streams that one process serves at a time."""
    direct: bool
    """Whether events may be written to a client's socket, past the server."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the settings of an application.

        :raises TypeError: if a value has the wrong type; the message names the key.
        :raises ValueError: if a value is out of its range; the message names the key.
        """
        return cls(
            redis_url=_redis_url(config),
            keepalive=_seconds(config, "SSE_KEEPALIVE", default=15) or None,
            retry=_optional_integer(config, "SSE_RETRY", least=0, unit="milliseconds"),
            max_pending=_integer(config, "SSE_MAX_PENDING", default=1 << 20, least=1, unit="bytes"),
            max_clients=_optional_integer(config, "SSE_MAX_CLIENTS", least=1, unit="streams"),
            direct=_boolean(config, "SSE_DIRECT", default=True),
        )

    @property
    def in_memory(self) -> bool:
        """Whether the events stay inside of this process."""
        return self.redis_url is not None and self.redis_url.startswith("memory://")


def _redis_url(config: Mapping[str, Any]) -> str | None:
    for key in URL_KEYS:
        url = config.get(key)
        if url is None or url == "":
            continue
        if not isinstance(url, str):
            # Its value may hold a password, and so is not shown.
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
