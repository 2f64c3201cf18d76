"""The members of channels: the clients of this process, and their leases in Redis.

A thread of its own tells Redis about them, so that no stream and no view waits for it.
"""
