"""Tests that need neither a server nor Redis: `make test-unit` runs them in seconds."""
