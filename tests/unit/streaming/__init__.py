"""Tests of the wing ``_streaming``."""
