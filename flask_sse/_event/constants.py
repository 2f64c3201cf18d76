"""Warns about numbers that JSON does not have: NaN and Infinity.

Python's :mod:`json` writes them, and a page can't parse such data. Any thread can use this;
nothing blocks.
"""

import json
import warnings
from typing import Final, cast
from weakref import WeakSet

_told: Final = WeakSet[object]()
"""The owners that have been warned. The warning is for a developer, not for each event."""


class _Constant(str):
    """The text of a number that JSON does not have."""

    __slots__ = ()


def warn_of_constants(owner: object, channel: object, head: bytes, tail: bytes = b"") -> None:
    """Warn once for each owner, in the name of the function's caller's caller.

    The check must cost next to nothing for other events, so it looks at their text only.

    :param owner: The state of the application.
    :param channel: The channel to which an event is published.
    :param head: The event as JSON, at least to the end of its data.
    :param tail: The rest of it.
    """
    if (b"NaN" not in head and b"Infinity" not in head) or owner in _told:
        return
    found = _find(head + tail)
    if found is None:
        return
    _told.add(owner)
    path, constant = found
    # It's the publishing code that must change, so it is a warning and not a line in the log.
    warnings.warn(
        f"an event for channel {channel!r} contains {constant} at {path}, which is not JSON: "
        f"JSON.parse() fails in the page. Publish None in its place, or give the app a JSON "
        f"provider that does so. This warning is shown once for each app",
        RuntimeWarning,
        stacklevel=3,
    )


def _find(payload: bytes) -> tuple[str, str] | None:
    """Return where the first constant is, and its text."""
    try:
        event: object = json.loads(payload, parse_constant=_Constant)
    except (ValueError, RecursionError):
        # Another provider may write anything.
        return None
    if not isinstance(event, dict):
        return None
    left: list[tuple[str, object]] = [("data", cast("dict[str, object]", event).get("data"))]
    while left:
        path, value = left.pop()
        if isinstance(value, _Constant):
            return path, value
        left += [(f"{path}[{key!r}]", item) for key, item in reversed(_items(value))]
    return None


def _items(value: object) -> list[tuple[object, object]]:
    if isinstance(value, dict):
        return [*cast("dict[object, object]", value).items()]
    return [*enumerate(cast("list[object]", value))] if isinstance(value, list) else []
