"""The examination behind ``flask sse doctor``.

Each check asks one thing of the settings, of Redis or of a stream, and returns findings. It may
import the state of an application and what lies below. It runs in the main thread of a command,
and in threads of its own where it waits for a stream.
"""
