"""A channel's name: as bytes for Redis, as text, in a log message, in a URL.

Pure; nothing blocks.
"""

from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

CONTROL: Final = b"flask-sse:control"
"""The channel on which processes tell each other which streams must end."""

Key = bytes | tuple[bytes, ...]
"""What the hub calls a stream's channel, or its several channels in order."""


def encode(channel: object) -> bytes:
    """Return a channel's name as bytes; a number is converted as redis-py does it.

    :raises TypeError: if it has an unsupported type.
    :raises ValueError: if it is text that UTF-8 can't encode, or reserved.
    """
    name = _to_bytes(channel)
    if name == CONTROL:
        raise ValueError(
            f"channel must not be {to_text(CONTROL)!r}, which Flask-SSE uses itself; choose "
            f"another name"
        )
    return name


def _to_bytes(channel: object) -> bytes:
    if isinstance(channel, (bytes, bytearray)):
        return bytes(channel)
    if isinstance(channel, (int, float)) and not isinstance(channel, bool):
        return str(channel).encode()
    if not isinstance(channel, str):
        raise TypeError(f"channel must be a str, not {channel!r}")
    try:
        return channel.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"channel must be text that UTF-8 can encode, not {channel!r}") from error


def to_text(name: bytes) -> str:
    """Return a channel's name as text, even if it is not UTF-8."""
    return name.decode(errors="replace")


def for_log(key: Key) -> str:
    """Return the name of a channel, or of a few, as it appears in log messages."""
    if isinstance(key, bytes):
        return repr(to_text(key[:100]))
    named = ", ".join([for_log(name) for name in key[:3]])
    return f"{named} and {len(key) - 3} more" if len(key) > 3 else named


def in_url(url: str, channel: str) -> str:
    """Return the URL of another channel of a stream.

    >>> in_url("http://localhost/stream?token=1&channel=a", "b c")
    'http://localhost/stream?token=1&channel=b+c'
    """
    parts = urlsplit(url)
    query = [
        pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "channel"
    ]
    return parts._replace(query=urlencode([*query, ("channel", channel)]), fragment="").geturl()
