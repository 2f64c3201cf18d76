"""The pytest plugin: one fixture, which pytest finds through the entry point ``flask_sse``.

Only pytest imports this module.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from flask import Flask

from flask_sse.testing import Harness, harness


@pytest.fixture
def sse_harness() -> Iterator[Callable[[Flask], Harness]]:
    """Return a function like :func:`flask_sse.testing.harness`, without the ``with`` block.

    The harness ends with the test.
    """
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(harness(app))
