"""The plugin of pytest's: one fixture, which pytest finds by the entry point ``flask_sse``.

Nothing but pytest imports this.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from flask import Flask

from flask_sse.testing import Harness, harness


@pytest.fixture
def sse_harness() -> Iterator[Callable[[Flask], Harness]]:
    """Return :func:`flask_sse.testing.harness` as a function whose blocks end with the test."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(harness(app))
