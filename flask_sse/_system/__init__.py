"""The operating system and gevent: time, sockets, polling, threads, forks.

It imports nothing of the package. Any thread can use it.
"""
