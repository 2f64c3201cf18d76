"""One request's stream, from the view until the hub has its connection.

This wing knows servers: their threads and greenlets, how gunicorn gives a connection away, and
where a client that has gone can be noticed. It may import the hub and what lies below. It runs
in the thread or greenlet that serves the request.
"""
