"""Talks to a Redis Cluster: finds the node of a channel, and follows it when it moves.

What one server and a cluster have in common is in the folder above.
"""
