"""The delivery: one thread that carries events from Redis to all clients of a process.

It knows who listens to which channel, and what each client still has to receive. It may import
the wings for Redis, callbacks, logs and events. All of it runs in the hub's thread, apart from
the few methods that say otherwise.
"""
