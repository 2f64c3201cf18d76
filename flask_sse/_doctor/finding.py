"""The findings of ``flask sse doctor``."""

import traceback
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

_SOON: Final = 1.0
_A_FEW_MILLISECONDS: Final = 0.01


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """The result of one check."""

    level: Level
    check: str
    """What was checked, in one or two words that stay the same."""
    found: str
    """What was found, in a sentence."""
    remedy: str = ""
    """What to do about it; empty if there is nothing to do."""


def ok(check: str, found: str) -> Finding:
    """Return a finding that everything is fine."""
    return Finding(Level.OK, check, found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """Return a finding that may become a problem, or a check that could not be made."""
    return Finding(Level.WARN, check, found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """Return a finding that makes clients miss some or all events."""
    return Finding(Level.FAIL, check, found, remedy)


def attempt(check: str, examine: Callable[[], Finding | Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check; an exception becomes one too, so that the others are made."""
    try:
        found = examine()
        if isinstance(found, Finding):
            yield found
        else:
            yield from found
    except Exception as error:  # noqa: BLE001 - the finding shows it
        yield unforeseen(check, error)


def unforeseen(check: str, error: Exception) -> Finding:
    """Return the finding about an exception that ended a check."""
    reason = describe(error)
    if error.__traceback__ is not None:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason += f" (in {Path(frame.filename).name}, line {frame.lineno})"
    return fail(
        check,
        f"this check could not be made: {reason}",
        "look for the cause in your code and settings; if it isn't there, report it",
    )


def describe(error: Exception) -> str:
    """Return the type and the text of an exception."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def soon(check: str, found: str, seconds: float) -> Finding:
    """Return a finding about something that should take no time."""
    if seconds > _SOON:
        return warn(check, found, "find out what delays it: a busy server, or something in between")
    return ok(check, found)


def in_words(seconds: float) -> str:
    """Return a time in readable form.

    >>> in_words(0.0021), in_words(0.25), in_words(5.04)
    ('2.1 ms', '250 ms', '5.0 s')
    """
    if seconds < _A_FEW_MILLISECONDS:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
