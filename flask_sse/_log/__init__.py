"""The log of a channel as data: positions, pages, and the part that is kept in memory.

Nothing here waits, reads a clock or holds a lock. It may import the wing for events.
"""
