"""The findings of ``flask sse doctor``."""

from enum import StrEnum
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
