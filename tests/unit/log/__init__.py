"""The wing for logs: no Redis, no clock, no listener."""
