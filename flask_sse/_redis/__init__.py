"""Everything that talks to Redis: to publish, to subscribe, to read the log of a channel.

It may import the wings for logs, events and the system. Publishing runs in the thread of the
caller, a subscription in the thread of its hub, and logs are read in a thread of their own.
"""
