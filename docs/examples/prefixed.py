"""The same application, with settings from environment variables that begin with ``FLASK_``."""

from app import app

app.config.from_prefixed_env()
