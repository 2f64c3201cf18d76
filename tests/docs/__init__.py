"""Tests of the documentation: what it shows, where it leads, what it recommends."""
