"""Tests of the wing ``_event``."""
