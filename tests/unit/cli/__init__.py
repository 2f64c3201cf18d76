"""Tests of the wing ``_cli``."""
