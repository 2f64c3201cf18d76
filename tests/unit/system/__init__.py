"""Tests of the wing ``_system``."""
