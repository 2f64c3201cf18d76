"""The benchmark: Flask-SSE beside its predecessor, its peers and the floor, in one run."""
