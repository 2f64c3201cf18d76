"""Tests of the wing ``_redis``."""
