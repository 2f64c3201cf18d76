"""Tests of the folder ``_redis/cluster``."""
