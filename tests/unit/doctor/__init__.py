"""Tests of the wing ``_doctor``."""
