"""Events as data: messages, the text of a stream, and the client that reads one.

It may import the wing for the system. Apart from the client, nothing here waits; any thread can
use it.
"""
