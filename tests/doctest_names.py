"""A pytest plugin: defines the names that the examples in docstrings use.

Sphinx runs the same examples, with the same names (``doctest_global_setup``).
"""

from typing import Any

import pytest
from flask import Flask

from flask_sse import Message, ServerSentEventsBlueprint, sse


@pytest.fixture(autouse=True)
def names_of_examples(doctest_namespace: dict[str, Any]) -> None:
    """Give an example its own application."""
    app = Flask("examples")
    app.config["REDIS_URL"] = "memory://"
    app.config["SSE_HISTORY"] = {"news": 100, "answer.*": 100}
    app.config["SSE_PRESENCE"] = ["room.*"]
    app.register_blueprint(sse, url_prefix="/stream")
    doctest_namespace.update(
        app=app, sse=sse, Message=Message, ServerSentEventsBlueprint=ServerSentEventsBlueprint
    )
