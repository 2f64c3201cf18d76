"""Tests of the wing ``_callbacks``."""
