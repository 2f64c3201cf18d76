"""The tests of Flask-SSE, against real servers, a real Redis and a real browser if possible."""
