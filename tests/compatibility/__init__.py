"""Applications written for Flask-SSE 1.0, run with it and with this version."""
