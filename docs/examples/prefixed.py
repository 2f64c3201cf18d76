"""The same application, with its settings from the environment."""

import os

from readme import app

app.config["SSE_REDIS_URL"] = os.environ.get("SSE_REDIS_URL")
