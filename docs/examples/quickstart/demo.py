"""The quickstart on the Redis that the environment names, or on none at all."""

import os

from sse import app

app.config["SSE_REDIS_URL"] = os.environ.get("REDIS_URL") or "memory://"
