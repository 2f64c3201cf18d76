"""Tests of the wing ``_hub``."""
