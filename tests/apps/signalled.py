"""The site with a receiver for every signal, which counts and does nothing else."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from flask import Flask

from flask_sse import signals
from tests.apps.site import app

__all__ = ["app"]

counted: Final[Counter[str]] = Counter()


def counts(name: str) -> Callable[..., None]:
    """Return a receiver that counts."""

    def receive(sender: Flask, **values: Any) -> None:
        del sender, values
        counted[name] += 1

    return receive


for _name in signals.__all__:
    getattr(signals, _name).connect(counts(_name), app, weak=False)
