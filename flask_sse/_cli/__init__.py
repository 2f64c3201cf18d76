"""The commands ``flask sse publish``, ``listen``, ``channels``, ``disconnect`` and ``doctor``.

They are a user's eyes and hands, so this wing may import every other one, and nothing but the
blueprint imports it. A command runs in the main thread of a process of its own.
"""
