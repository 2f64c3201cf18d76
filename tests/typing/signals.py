"""How a typed application receives signals; checked by mypy and by pyright, never run."""

from typing import Any, assert_type

from blinker import NamedSignal
from flask import Flask

from flask_sse import signals

assert_type(signals.client_connected, NamedSignal)
assert_type(signals.redis_lost.name, str)


@signals.client_gone.connect
def note(sender: Flask, *, channel: str, reason: str, duration: float, **extra: Any) -> None:
    """A receiver is connected by a decorator, as one of Flask's own signals."""


def create_app() -> Flask:
    """Or for one application."""
    app = Flask(__name__)
    signals.client_gone.connect(note, app)
    return app
