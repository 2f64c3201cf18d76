"""The tests of Flask-SSE, against the real thing wherever there is one."""
