"""Keeps pytest away from the applications to be measured, which have their own environments."""

from __future__ import annotations

collect_ignore = ["servers"]
